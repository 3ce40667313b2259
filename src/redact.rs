//! The one function that takes users and passwords out of the URLs in a text which somebody else wrote: another program, a
//! server, or a person who wrote a value that is refused.
//!
//! It looks for the shape of a URL, and never for the letters of a secret: a short password would take away half of a message.

/// What ends a URL in a text. A password may have any of these only percent-encoded.
const ENDS: &[char] = &['\'', '"', '`', '<', '>', '‘', '’'];

/// The text, with each URL in it without its user and password: `https://host/path` for `https://me:secret@host/path`.
pub fn without_users(text: &str) -> String {
    const MARK: &str = "://";
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (front, after) = rest.split_at(at + MARK.len());
        cleaned.push_str(front);
        let word = &after[..after.find(|c: char| c.is_whitespace() || ENDS.contains(&c)).unwrap_or(after.len())];
        rest = &after[user_part(word)..];
    }
    cleaned.push_str(rest);
    cleaned
}

/// The length of the user part, with its `@`, of what follows the `://` of a URL; 0 where there is none.
pub fn user_part(after_scheme: &str) -> usize {
    let authority = after_scheme.find(['/', '?', '#', '\\']).unwrap_or(after_scheme.len());
    // A password with a `/` that is not encoded ends the authority too early. What looks like a port and is none is such a password.
    let is_cut_off = !after_scheme.starts_with('[')
        && after_scheme[..authority]
            .split_once(':')
            .is_some_and(|(_, port)| !port.contains('@') && port.chars().any(|c| !c.is_ascii_digit()));
    let searched = if is_cut_off { after_scheme } else { &after_scheme[..authority] };
    searched.rfind('@').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_every_url_is_cut_and_nothing_else() {
        for (text, cleaned) in [
            ("fatal: unable to access 'https://TOKEN@h/x.git/': no", "fatal: unable to access 'https://h/x.git/': no"),
            ("https://u:p@h:1/x and http://t@h", "https://h:1/x and http://h"),
            ("git+https://u:p%40@h/x?ref=a@b", "git+https://h/x?ref=a@b"),
            ("ssh://git:pw@[::1]:22/x", "ssh://[::1]:22/x"),
            ("https://u:p@w@h/x", "https://h/x"),
            ("https://u:p/w@h/x", "https://h/x"),
            ("https://h:80/a@b", "https://h:80/a@b"),
            ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
            ("SSH remote key was not OK, mail me@example.org", "SSH remote key was not OK, mail me@example.org"),
            ("://@://", "://://"),
            ("", ""),
        ] {
            assert_eq!(without_users(text), cleaned);
        }
    }
}
