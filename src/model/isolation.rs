//! What an evaluation may reach: whether it runs in a cage, and from where the inputs of a flake may come.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Invalid;
use super::text::as_text;

/// Whether the kernel keeps an evaluation from everything but the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// It runs in namespaces of its own, or not at all.
    #[default]
    Cage,
    /// It can read and reach what claveld can. Everybody who can push to a source can then read claveld's key.
    None,
}

/// A place from which inputs may come: a scheme, or a scheme with one host: `https`, `https://git.example.lan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputOrigin {
    scheme: String,
    /// None for every host with a public address.
    host: Option<String>,
}

/// The places from which the inputs of a flake may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPolicy(Vec<InputOrigin>);

/// The way to fetch an input that the policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedInput {
    /// It needs no network, or its host is one that the configuration names.
    Anywhere,
    /// Its host has to have public addresses alone.
    Public(String),
}

/// The reason why an input is not fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedInput {
    /// Its scheme, or its host, is not in the configuration.
    #[error("it would come from {origin}, and `evaluate.inputs` does not have `{scheme}`")]
    Scheme {
        /// The whole place.
        origin: String,
        /// The entry that would allow it.
        scheme: String,
    },
    /// Its host is this machine, or in a private network.
    #[error(
        "its host {host} has the address {address}, which is not public; to allow it, add `SCHEME://{host}` to `evaluate.inputs`"
    )]
    Private {
        /// The host.
        host: String,
        /// The address.
        address: IpAddr,
    },
    /// Its URL has a form that programs may read in different ways.
    #[error("its URL is not of the form `SCHEME://HOST/…`, with a host of letters, digits, dots and hyphens")]
    Malformed,
    /// It has submodules.
    #[error("it has submodules, which come from wherever its repository says; make each of them an input of its own")]
    Submodules,
    /// Its entry in the lock has no hash, or lacks something else.
    #[error("its entry in flake.lock has no {0}")]
    Incomplete(&'static str),
}

impl Default for InputPolicy {
    fn default() -> Self {
        let scheme = |scheme: &str| InputOrigin { scheme: scheme.to_owned(), host: None };
        Self(["https", "ssh", "git", "github", "gitlab", "sourcehut"].map(scheme).to_vec())
    }
}

impl From<Vec<InputOrigin>> for InputPolicy {
    fn from(origins: Vec<InputOrigin>) -> Self {
        Self(origins)
    }
}

impl FromStr for InputOrigin {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |why: &str| Invalid::new("an origin of inputs", text, why);
        let (scheme, host) = text.split_once("://").map_or((text, None), |(scheme, host)| (scheme, Some(host)));
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Err(bad(
                "it has to be a scheme such as `https`, or one with a host such as `https://git.example.lan`",
            ));
        }
        let is_host =
            |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b));
        match host {
            Some(host) if !is_host(host) => Err(bad("behind `://` there has to be a host alone")),
            host => Ok(Self { scheme: scheme.to_owned(), host: host.map(str::to_ascii_lowercase) }),
        }
    }
}

impl fmt::Display for InputOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{}://{host}", self.scheme),
            None => f.write_str(&self.scheme),
        }
    }
}

as_text!(InputOrigin, pattern: "^[a-z]+(://[A-Za-z0-9._:\\[\\]-]+)?$", about: "A scheme, or a scheme and a host, from which inputs may come");

impl InputPolicy {
    /// Whether the input with these locked attributes (Nix's manual, "Lock files") may be fetched.
    pub fn check(&self, locked: &Map<String, Value>) -> Result<AllowedInput, RefusedInput> {
        let text = |name: &str| locked.get(name).and_then(Value::as_str);
        if text("narHash").is_none() {
            return Err(RefusedInput::Incomplete("narHash"));
        }
        let fetcher = text("type").ok_or(RefusedInput::Incomplete("type"))?;
        let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && value.as_u64() != Some(0);
        if locked.get("submodules").is_some_and(is_set) {
            return Err(RefusedInput::Submodules);
        }
        let (scheme, host) = match fetcher {
            // Without a host it is the public one of that name.
            "github" | "gitlab" | "sourcehut" => match text("host").map(str::to_ascii_lowercase) {
                Some(host) if !is_host(&host) => return Err(RefusedInput::Malformed),
                host => (fetcher, host),
            },
            "git" | "hg" | "tarball" | "file" => {
                origin_of(text("url").ok_or(RefusedInput::Incomplete("url"))?).ok_or(RefusedInput::Malformed)?
            }
            other => (other, None),
        };
        let is_named = |origin: &InputOrigin| origin.scheme == scheme && origin.host.is_some() && origin.host == host;
        if self.0.iter().any(is_named) {
            return Ok(AllowedInput::Anywhere);
        }
        if !self.0.iter().any(|origin| origin.scheme == scheme && origin.host.is_none()) {
            let origin = host.as_ref().map_or_else(|| scheme.to_owned(), |host| format!("{scheme}://{host}"));
            return Err(RefusedInput::Scheme { origin, scheme: scheme.to_owned() });
        }
        match host {
            // A key of claveld's own opens it, and not only its place in the network.
            Some(_) if scheme == "ssh" => Ok(AllowedInput::Anywhere),
            Some(host) => Ok(AllowedInput::Public(host)),
            None => Ok(AllowedInput::Anywhere),
        }
    }

    /// Whether the configuration names this host, by any scheme.
    pub fn names_host(&self, host: &str) -> bool {
        self.0.iter().any(|origin| origin.host.as_deref() == Some(host))
    }

    /// Whether a connection to `host` may go without TLS.
    pub fn allows_plain_http(&self, host: &str) -> bool {
        let is_for_it = |named: &Option<String>| named.as_deref().is_none_or(|named| named == host);
        self.0.iter().any(|origin| origin.scheme == "http" && is_for_it(&origin.host))
    }
}

/// The scheme and the host of a URL. What has another form is read in different ways by different programs: a path, `file:/x`, and git's
/// short form `user@host:path` are none.
fn origin_of(url: &str) -> Option<(&str, Option<String>)> {
    let (scheme, rest) = url.split_once("://")?;
    // `git+https` and `tarball+https` are fetched by https.
    let scheme = scheme.rsplit('+').next().unwrap_or(scheme);
    if scheme == "file" {
        return Some((scheme, None));
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // A port, but not the last group of an IPv6 address.
    let host = match host.rsplit_once(':') {
        Some((front, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !front.ends_with(':') => front,
        _ => host,
    };
    let host = host.strip_prefix('[').map_or(Some(host), |inner| inner.strip_suffix(']'))?.to_ascii_lowercase();
    is_host(&host).then_some((scheme, Some(host)))
}

/// Whether it is the name or the address of a host, without anything that a program could decode.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b))
}

/// Whether an address belongs to this machine or to a network that is not public (RFC 6890).
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || a == 0 || a >= 240
                // Shared address space (RFC 6598), and benchmarks (RFC 2544).
                || (a == 100 && (64..128).contains(&b)) || (a == 198 && (18..20).contains(&b))
                // Protocol assignments (RFC 6890), and relays of 6to4 (RFC 7526).
                || matches!(v4.octets(), [192, 0, 0, _] | [192, 88, 99, _])
        }
        IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), v6.segments()) {
            (Some(v4), _) => is_private(v4.into()),
            // The well-known prefix of NAT64 (RFC 6052) leads to the address at its end.
            (None, [0x64, 0xff9b, 0, 0, 0, 0, high, low]) => {
                is_private(IpAddr::V4(((u32::from(high) << 16) | u32::from(low)).into()))
            }
            (None, segments) => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
                    || segments[0] == 0x2002
                    // Addresses that have an IPv4 address in them: local NAT64 (RFC 8215), compatible ones (RFC 4291), Teredo
                    // (RFC 4380); and documentation (RFC 3849).
                    || matches!(segments, [0x64, 0xff9b, 1, ..] | [0, 0, 0, 0, 0, 0, ..] | [0x2001, 0 | 0xdb8, ..])
                    || (segments[0] & 0xffc0) == 0xfec0
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &[&str], locked: &str) -> Result<AllowedInput, RefusedInput> {
        let policy = match policy {
            [] => InputPolicy::default(),
            origins => origins.iter().map(|o| o.parse().unwrap()).collect::<Vec<InputOrigin>>().into(),
        };
        let mut locked: Map<String, Value> = serde_json::from_str(locked).unwrap();
        locked.insert("narHash".to_owned(), "sha256-x".into());
        policy.check(&locked)
    }

    #[test]
    fn the_schemes_of_a_network_are_allowed_and_files_are_not() {
        for locked in [
            r#"{"type":"github","owner":"NixOS","repo":"nixpkgs","rev":"0"}"#,
            r#"{"type":"git","url":"ssh://git@git.example.org/x"}"#,
        ] {
            assert_eq!(check(&[], locked), Ok(AllowedInput::Anywhere), "{locked}");
        }
        for url in [
            "file:/etc/passwd",
            "git+file:/srv/other",
            "ssh+file:/srv/other",
            "git@git.example.org:x",
            "/srv/other",
            "srv/other",
            "ext::sh -c touch% x",
            "https:example.org",
            "https:///etc/x",
            "git://127.0.0.%31/x",
            "git://%6cocalhost/x",
            "https://[::1/x",
            "https://exa mple.org/x",
        ] {
            for fetcher in ["git", "tarball", "file"] {
                let locked = format!(r#"{{"type":"{fetcher}","url":"{url}"}}"#);
                assert_eq!(check(&[], &locked), Err(RefusedInput::Malformed), "{locked}");
            }
        }
        let private = r#"{"type":"github","owner":"o","repo":"r","host":"u:pw@h"}"#;
        assert_eq!(check(&[], private), Err(RefusedInput::Malformed));
        for submodules in ["true", "1", "\"1\""] {
            let locked = format!(r#"{{"type":"git","url":"https://example.org/x","submodules":{submodules}}}"#);
            assert_eq!(check(&[], &locked), Err(RefusedInput::Submodules), "{locked}");
        }
        let without = r#"{"type":"git","url":"https://example.org/x","submodules":false}"#;
        assert_eq!(check(&[], without), Ok(AllowedInput::Public("example.org".to_owned())));
        for (url, host) in [
            ("https://example.org/x.tar.gz", "example.org"),
            ("https://me@Example.org:8443/x", "example.org"),
            ("https://127.0.0.1/x", "127.0.0.1"),
            ("https://[::1]:80/x", "::1"),
        ] {
            let locked = format!(r#"{{"type":"tarball","url":"{url}"}}"#);
            assert_eq!(check(&[], &locked), Ok(AllowedInput::Public(host.to_owned())), "{url}");
        }
        for locked in [
            r#"{"type":"path","path":"/etc"}"#,
            r#"{"type":"git","url":"file:///srv/other"}"#,
            r#"{"type":"tarball","url":"file:///etc/x.tar"}"#,
            r#"{"type":"file","url":"http://example.org/x"}"#,
            r#"{"type":"indirect","id":"nixpkgs"}"#,
            r#"{"type":"new-fetcher"}"#,
        ] {
            assert!(matches!(check(&[], locked), Err(RefusedInput::Scheme { .. })), "{locked}");
        }
        assert_eq!(InputPolicy::default().check(&Map::new()), Err(RefusedInput::Incomplete("narHash")));
    }

    #[test]
    fn a_host_that_the_configuration_names_may_be_private() {
        let locked = r#"{"type":"git","url":"https://git.lan/x"}"#;
        assert_eq!(check(&["https://git.lan"], locked), Ok(AllowedInput::Anywhere));
        assert!(check(&["https://other.lan"], locked).is_err());
        assert_eq!(check(&["path"], r#"{"type":"path","path":"/x"}"#), Ok(AllowedInput::Anywhere));
        for bad in ["", "HTTPS", "https:", "https://", "https://a/b", "https://u@h"] {
            assert!(bad.parse::<InputOrigin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_known() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "255.255.255.255",
            "192.0.0.8",
            "192.88.99.1",
            "64:ff9b:1::1",
            "::7f00:1",
            "2001::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "140.82.121.4", "2606:50c0:8000::153", "::ffff:1.1.1.1"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
