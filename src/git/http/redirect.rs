//! Whether a redirect of a git host is followed, and what goes along.

use gix::bstr::BStr;
use gix::url::Scheme;

/// A redirect that is followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    /// The URL of the repository there.
    pub(super) base: String,
    /// Whose it is.
    pub(super) place: Place,
}

/// Whose a URL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The scheme, host and port of the repository: credentials and the client certificate are for it.
    Home,
    /// Another host, to which nothing goes along.
    Elsewhere,
}

/// Decides about a redirect of `url`, which is `base` and what git asks for below it, to `to`. `home` is the repository's own URL.
/// The error is the end of a sentence.
pub(super) fn decide(home: &gix::Url, base: &str, url: &str, to: &str) -> Result<Redirect, String> {
    let (Ok(from), Ok(target)) = (gix::url::parse(BStr::new(url)), gix::url::parse(BStr::new(to))) else {
        return Err("to a URL that cannot be read".to_owned());
    };
    let shown = || format!("{}://{}", target.scheme.as_str(), target.host().unwrap_or_default());
    match (&from.scheme, &target.scheme) {
        (Scheme::Https, Scheme::Https) | (Scheme::Http, Scheme::Http | Scheme::Https) => {}
        (Scheme::Https, Scheme::Http) => {
            return Err(format!("to {}, which is not encrypted, and that is never followed", shown()));
        }
        _ => return Err(format!("to {}, which is no web server", shown())),
    }
    // git itself demands this too: otherwise a page to log in at would be taken for a repository.
    let tail = url.strip_prefix(base).unwrap_or_default();
    match to.strip_suffix(tail) {
        Some(base) if !tail.is_empty() => Ok(Redirect { base: base.to_owned(), place: place_of(home, &target) }),
        _ => Err(format!("to a page of {} that is not a git repository", shown())),
    }
}

/// Whose `url` is.
pub(super) fn place_of(home: &gix::Url, url: &gix::Url) -> Place {
    let host = |url: &gix::Url| url.host().map(str::to_ascii_lowercase);
    let is_home = url.scheme == home.scheme
        && host(url) == host(home)
        && url.port_or_default() == home.port_or_default()
        && url.user().is_none();
    if is_home { Place::Home } else { Place::Elsewhere }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_a_repository_and_never_out_of_tls() {
        let asked = "/info/refs?service=git-upload-pack";
        let decide = |base: &str, to: &str| {
            let home = gix::url::parse("https://h/a.git").unwrap();
            decide(&home, base, &format!("{base}{asked}"), to)
        };
        let follows = |to: &str, place| {
            let base = to.to_owned();
            assert_eq!(decide("https://h/a.git", &format!("{to}{asked}")), Ok(Redirect { base, place }));
        };
        follows("https://h/b.git", Place::Home);
        follows("https://H:443/b.git", Place::Home);
        follows("https://h:8443/b.git", Place::Elsewhere);
        follows("https://other/a.git", Place::Elsewhere);
        follows("https://h.other/a.git", Place::Elsewhere);
        // The way back is the way home.
        let back = decide("https://other/a.git", &format!("https://h/a.git{asked}")).unwrap();
        assert_eq!(back.place, Place::Home);
        for (to, why) in [
            (format!("http://h/a.git{asked}"), "not encrypted"),
            (format!("ftp://h/a.git{asked}"), "no web server"),
            (format!("file:///etc{asked}"), "no web server"),
            ("https://h/login?next=a.git".to_owned(), "not a git repository"),
            (String::new(), "cannot be read"),
        ] {
            let error = decide("https://h/a.git", &to).unwrap_err();
            assert!(error.contains(why), "{to}: {error}");
        }
        let secret = decide("https://h/a.git", "https://me:s3cret@h/login").unwrap_err();
        assert!(!secret.contains("s3cret"), "{secret}");
    }
}
