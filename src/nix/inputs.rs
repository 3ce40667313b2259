//! Fetches the inputs of a flake, each at the content that the lock names. This step alone has the network and claveld's
//! credentials, and it evaluates nothing that the flake says.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{Nix, NixError, NixString};
use crate::model::{AllowedInput, InputPolicy, RefusedInput, is_private};
use crate::process::Invocation;

/// An input of a flake, by the attributes of its lock.
pub type LockedInput = Map<String, Value>;

/// The most characters of another program's words about one input.
const MAX_WORDS: usize = 300;

impl Nix {
    /// Fetches `inputs` into the store, as far as `policy` allows. Returns for each the reason why it was not fetched.
    pub async fn fetch_inputs(&self, inputs: &[&LockedInput], policy: &InputPolicy) -> Vec<Result<(), String>> {
        let mut results = Vec::new();
        for input in inputs {
            results.push(check(input, policy).await.map_err(|refused| refused.to_string()));
        }
        let allowed: Vec<&LockedInput> =
            inputs.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(input, _)| *input).collect();
        if allowed.is_empty() || self.fetch_trees(&allowed).await.is_ok() {
            return results;
        }
        // Which of them failed, and why, is known only when each is fetched alone.
        for (input, result) in inputs.iter().zip(&mut results) {
            if result.is_ok() {
                *result = self.fetch_trees(&[input]).await.map_err(|error| words(&error, input));
            }
        }
        results
    }

    async fn fetch_trees(&self, inputs: &[&LockedInput]) -> Result<(), NixError> {
        let json = inputs.iter().map(|input| Value::Object((*input).clone())).collect::<Value>().to_string();
        let trees = "map (input: (builtins.fetchTree input).outPath)";
        let expression = format!("{trees} (builtins.fromJSON {})", NixString(&json));
        let run = self
            .evaluating(Invocation::new("nix-instantiate"), &expression)
            // It refuses an input whose content can change.
            .args(["--option", "pure-eval", "true"])
            .run();
        run.await.map(drop).map_err(|failure| NixError::failed("fetch the inputs".to_owned(), failure))
    }
}

/// Whether an input may be fetched, by its lock and by the addresses of its host.
async fn check(input: &LockedInput, policy: &InputPolicy) -> Result<(), RefusedInput> {
    let AllowedInput::Public(host) = policy.check(input)? else { return Ok(()) };
    let private = |address: &IpAddr| is_private(*address);
    let addresses: Vec<IpAddr> = match tokio::net::lookup_host((host.as_str(), 443)).await {
        Ok(addresses) => addresses.map(|address| address.ip()).collect(),
        // Nix says that the host cannot be found.
        Err(_) => Vec::new(),
    };
    match addresses.into_iter().find(private) {
        Some(address) => Err(RefusedInput::Private { host, address }),
        None => Ok(()),
    }
}

/// The first line of Nix's words about a failed input. They may have the body of an answer, or the hash of a file that is none
/// of the pusher's: both are left out.
fn words(error: &NixError, input: &LockedInput) -> String {
    let message = error.message();
    let first = message.lines().map(str::trim).find(|line| !line.is_empty() && *line != "error:").unwrap_or_default();
    let expected = input.get("narHash").and_then(Value::as_str).unwrap_or_default();
    let is_hash = |word: &str| ["sha1", "sha256", "sha512", "md5"].iter().any(|kind| word.contains(kind));
    let shown: Vec<&str> = first
        .split(' ')
        .map(|word| if is_hash(word) && !word.contains(expected) { "(another hash)" } else { word })
        .collect();
    shown.join(" ").trim_start_matches("error: ").chars().take(MAX_WORDS).collect()
}
