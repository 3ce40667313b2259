//! What the words of a server, of ssh and of git mean: whose mistake it is, and what to do now.
//!
//! gix classifies an HTTP status of 401 and 403 and no other, and what ssh and git say is text. So this reads texts, and no other code
//! does. The tests in `tests/private.rs` and `fetch_tests.rs` ask real servers and programs.

use super::access::Access;

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// There is no such repository.
    NoRepository,
    /// Clavel is not let in, or does not believe the host.
    Refused,
    /// The host, the network or this machine fails.
    Fault,
}

/// An obstacle, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) obstacle: Obstacle,
    /// What to do, as the end of a sentence.
    pub(super) advice: &'static str,
}

/// The advice for a server whose certificate is not believed.
const CERTIFICATE: &str = "name the certificate of the host, or of the CA that signed it, with ca-file of a [[credentials]] table, and \
                           check the name in the URL and the clock";

/// The advice for a server that may want to see a certificate. nginx answers with the status 400 where it does.
const CLIENT_CERTIFICATE: &str = "if the host asks for a client certificate, name one that it accepts and that is still valid, with \
                                  client-certificate and client-key of a [[credentials]] table; otherwise check that the URL is that of a \
                                  git repository";

/// The advice for a client certificate that this machine cannot use.
const KEY_OF_CERTIFICATE: &str =
    "client-key of the [[credentials]] table has to be the key of its client-certificate, both in PEM";

/// The advice for a server that does not let this user in.
const TOKEN: &str = "name a token that is still good with a [[credentials]] table";

/// The advice for a proxy that asks who Clavel is.
const PROXY_LOGIN: &str = "the proxy asks for a user and a password, and did not get right ones: let the proxy admit this machine by its \
                           address, or name the proxy with its user and password in the variable https_proxy of this service alone";

/// The advice for a proxy that does not connect to the host.
const PROXY_REFUSES: &str =
    "the proxy itself answers, and does not connect to the host: correct the URL, or let the proxy connect to it";

/// The advice for a proxy that does not answer.
const PROXY_DOWN: &str = "the proxy that the [[credentials]] table names does not answer: correct `proxy`, or start it";

/// What libcurl says where it does not reach whom it connects to, in all its versions.
const NOT_CONNECTED: [&str; 4] =
    ["Failed to connect to", "Could not connect to server", "Couldn't connect to server", "resolve proxy"];

/// A text, and what it means. The first row that is in the words counts.
const TABLE: [(&str, Obstacle, &str); 42] = [
    // A proxy.
    ("CONNECT tunnel failed, response 407", Obstacle::Refused, PROXY_LOGIN),
    ("Received HTTP code 407 from proxy", Obstacle::Refused, PROXY_LOGIN),
    // tinyproxy's answer to a wrong password.
    ("CONNECT tunnel failed, response 401", Obstacle::Refused, PROXY_LOGIN),
    ("Received HTTP code 401 from proxy", Obstacle::Refused, PROXY_LOGIN),
    ("CONNECT tunnel failed, response", Obstacle::Fault, PROXY_REFUSES),
    ("from proxy after CONNECT", Obstacle::Fault, PROXY_REFUSES),
    // OpenSSH.
    (
        "Host key verification failed",
        Obstacle::Refused,
        "put the key of the host, once you have compared it, into host-keys, or into the file of known-hosts of a [[credentials]] \
         table, or into ~/.ssh/known_hosts of the user who runs this (ssh-keyscan prints it)",
    ),
    (
        "Permission denied (",
        Obstacle::Refused,
        "give the host the public half of the key, or name another key with ssh-identity of a [[credentials]] table",
    ),
    ("Load key", Obstacle::Refused, "correct ssh-identity: the user who runs this has to be able to read the key"),
    ("Could not resolve hostname", Obstacle::Fault, "correct the name of the host, or this machine's DNS"),
    ("ssh: not found", Obstacle::Fault, "install the OpenSSH client, or correct the PATH of this service"),
    ("ssh: command not found", Obstacle::Fault, "install the OpenSSH client, or correct the PATH of this service"),
    // git, on this machine or on the host.
    ("Failed to invoke program git", Obstacle::Fault, "install git, or correct the PATH of this service"),
    ("git-upload-pack: not found", Obstacle::Fault, "install git on the host"),
    ("git-upload-pack: command not found", Obstacle::Fault, "install git on the host"),
    ("does not appear to be a git repository", Obstacle::NoRepository, "correct the URL"),
    ("Repository not found", Obstacle::NoRepository, "correct the URL, or let this key read the repository"),
    ("access denied or repository not exported", Obstacle::NoRepository, "correct the URL"),
    (
        "object format used by the remote is unsupported",
        Obstacle::NoRepository,
        "Clavel reads repositories with SHA-1 object names alone; make one with `git init --bare --object-format=sha1`",
    ),
    // TLS.
    ("unable to set private key file", Obstacle::Refused, KEY_OF_CERTIFICATE),
    ("could not load PEM client certificate", Obstacle::Refused, KEY_OF_CERTIFICATE),
    ("roblem with the local SSL certificate", Obstacle::Refused, KEY_OF_CERTIFICATE),
    ("alert certificate", Obstacle::Refused, CLIENT_CERTIFICATE),
    ("alert bad certificate", Obstacle::Refused, CLIENT_CERTIFICATE),
    ("alert unknown ca", Obstacle::Refused, CLIENT_CERTIFICATE),
    ("SSL peer certificate", Obstacle::Refused, CERTIFICATE),
    ("SSL certificate problem", Obstacle::Refused, CERTIFICATE),
    ("certificate verification failed", Obstacle::Refused, CERTIFICATE),
    // git over HTTP.
    ("Authentication failed for", Obstacle::Refused, TOKEN),
    ("could not read Username for", Obstacle::Refused, TOKEN),
    ("could not read Password for", Obstacle::Refused, TOKEN),
    (
        "returned error: 403",
        Obstacle::Refused,
        "the host knows who this is and does not allow it: give the token the right to write",
    ),
    ("returned error: 404", Obstacle::NoRepository, "correct the URL, or let this token see the repository"),
    ("returned error: 5", Obstacle::Fault, "the host itself fails: try again later, and look at its log"),
    ("returned error: 400", Obstacle::Refused, CLIENT_CERTIFICATE),
    // HTTP.
    ("HTTP status 400", Obstacle::Refused, CLIENT_CERTIFICATE),
    ("HTTP status 401", Obstacle::Refused, TOKEN),
    (
        "HTTP status 403",
        Obstacle::Refused,
        "the host knows who this is and does not allow it: give the token the right to read this repository",
    ),
    (
        "HTTP status 404",
        Obstacle::NoRepository,
        "correct the URL; many hosts also answer so where a token is missing or may not see the repository",
    ),
    (
        "HTTP status 429",
        Obstacle::Fault,
        "the host limits how often it may be asked: ask it less often (`interval` or `poll`)",
    ),
    ("HTTP status 5", Obstacle::Fault, "the host itself fails: try again later, and look at its log"),
    ("HTTP status ", Obstacle::Fault, "check that the URL is that of a git repository"),
];

/// What the words mean, where one of the texts is known, about a host that is reached like this.
pub(super) fn explain(words: &str, access: &Access) -> Option<Explanation> {
    let found = TABLE.iter().find(|(text, ..)| words.contains(text));
    let found = found.map(|(_, obstacle, advice)| Explanation { obstacle: *obstacle, advice });
    // Where there is a proxy, nothing else is connected to. The words may not say so.
    let is_proxy_down = || access.proxy.is_some() && NOT_CONNECTED.iter().any(|text| words.contains(text));
    found.or_else(|| is_proxy_down().then_some(Explanation { obstacle: Obstacle::Fault, advice: PROXY_DOWN }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_and_servers_say_is_understood() {
        for (words, obstacle, advice) in [
            ("No ED25519 host key is known.\nHost key verification failed.", Obstacle::Refused, "known-hosts"),
            ("git@h: Permission denied (publickey).", Obstacle::Refused, "ssh-identity"),
            ("sh: 1: ssh: not found", Obstacle::Fault, "OpenSSH client"),
            ("ERROR: Repository not found.", Obstacle::NoRepository, "URL"),
            ("[60] SSL peer certificate was not OK: self-signed certificate (18)", Obstacle::Refused, "ca-file"),
            ("fatal: Authentication failed for 'https://h/x/'", Obstacle::Refused, "[[credentials]]"),
            ("fatal: unable to access: The requested URL returned error: 403", Obstacle::Refused, "right to write"),
            ("Received HTTP status 404", Obstacle::NoRepository, "URL"),
            ("Received HTTP status 429", Obstacle::Fault, "less often"),
            ("Received HTTP status 503", Obstacle::Fault, "try again later"),
            ("Received HTTP status 418", Obstacle::Fault, "git repository"),
        ] {
            let found = explain(words, &Access::default()).unwrap();
            assert_eq!(found.obstacle, obstacle, "{words}");
            assert!(found.advice.contains(advice), "{words}: {}", found.advice);
        }
        assert_eq!(explain("Connection refused", &Access::default()), None);
    }

    #[test]
    fn a_proxy_is_told_from_the_host_behind_it() {
        let access = Access { proxy: Some("http://proxy:3128".parse().unwrap()), ..Access::default() };
        let advice = |words: &str, access: &Access| explain(words, access).map(|known| known.advice);
        for words in ["Failed to connect to 127.0.0.1 port 9", "Could not resolve proxy: proxy"] {
            assert_eq!(
                (advice(words, &access), advice(words, &Access::default())),
                (Some(PROXY_DOWN), None),
                "{words}"
            );
        }
        for words in ["CONNECT tunnel failed, response 407", "Received HTTP code 407 from proxy after CONNECT"] {
            assert_eq!(advice(words, &access), Some(PROXY_LOGIN), "{words}");
        }
        let refused = "Could not connect to server: CONNECT tunnel failed, response 403";
        assert_eq!(advice(refused, &access), Some(PROXY_REFUSES));
    }
}
