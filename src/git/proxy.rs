//! The proxy through which a host is reached.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::Invalid;

/// The protocols of proxies that libcurl speaks, which does the HTTP of gix and of git.
const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// The URL of a proxy, without a user and a password.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyUrl(String);

impl FromStr for ProxyUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let invalid = |why: &str| Err(Invalid::new("the URL of a proxy", shown, why));
        let Some((scheme, rest)) = text.split_once("://") else {
            return invalid("it has to be like http://proxy.example.org:3128");
        };
        if !SCHEMES.contains(&scheme) {
            return invalid("only http, https, socks5 and socks5h proxies are supported");
        }
        if rest.contains('@') {
            return invalid("a user or a password in a URL is shown in many places, and Clavel logs in to no proxy");
        }
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() || host.len() > 300 || host.contains(|c: char| !c.is_ascii_graphic() || "/?#\\".contains(c))
        {
            return invalid("what follows :// has to be a host, and a port if it is not the usual one");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ProxyUrl {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ProxyUrl> for String {
    fn from(proxy: ProxyUrl) -> Self {
        proxy.0
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_scheme_a_host_and_a_port() {
        for good in ["http://proxy:3128", "https://proxy.example.org/", "socks5h://127.0.0.1:1080", "http://[::1]:3128"]
        {
            assert_eq!(good.parse::<ProxyUrl>().unwrap().to_string(), good);
        }
        for (bad, why) in [
            ("proxy:3128", "has to be like"),
            ("ftp://proxy", "only http"),
            ("http://me:secret@proxy", "logs in to no proxy"),
            ("http://", "a host"),
            ("http://proxy/path", "a host"),
            ("http://pro xy", "a host"),
            ("http://proxy\n", "a host"),
        ] {
            let error = bad.parse::<ProxyUrl>().unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{bad}: {error}");
        }
    }
}
