//! Fetches the inputs of a flake, each at the content that the lock names. This step alone has the network and claveld's
//! credentials, and it evaluates nothing that the flake says.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::egress::Egress;
use super::{FetchAccess, Nix, NixError, NixString};
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
        let mut are_fetched = true;
        for (group, access) in self.groups(&allowed) {
            are_fetched &= self.fetch_trees(&group, access, policy).await.is_ok();
        }
        if are_fetched {
            return results;
        }
        // Which of them failed, and why, is known only when each is fetched alone.
        for (input, result) in inputs.iter().zip(&mut results) {
            if result.is_ok() {
                let access = self.keys.of(&Value::Object((*input).clone()));
                *result = self.fetch_trees(&[input], access, policy).await;
            }
        }
        results
    }

    /// The inputs that have the same access, which one run can fetch together.
    fn groups<'a>(&self, inputs: &[&'a LockedInput]) -> Vec<(Vec<&'a LockedInput>, Result<FetchAccess, String>)> {
        let mut groups: Vec<(Vec<&LockedInput>, Result<FetchAccess, String>)> = Vec::new();
        for input in inputs {
            let access = self.keys.of(&Value::Object((*input).clone()));
            match groups.iter_mut().find(|(_, other)| *other == access) {
                Some((group, _)) => group.push(input),
                None => groups.push((vec![input], access)),
            }
        }
        groups
    }

    async fn fetch_trees(
        &self,
        inputs: &[&LockedInput],
        access: Result<FetchAccess, String>,
        policy: &InputPolicy,
    ) -> Result<(), String> {
        let action = "fetch the inputs";
        let access = access?;
        let egress = Egress::open(policy).await.map_err(|error| format!("cannot open a way out for it: {error}"))?;
        let json = inputs.iter().map(|input| Value::Object((*input).clone())).collect::<Value>().to_string();
        let trees = "map (input: (builtins.fetchTree input).outPath)";
        let expression = format!("{trees} (builtins.fromJSON {})", NixString(&json));
        let run = self
            .evaluating(Invocation::new("nix-instantiate"), &expression)
            // It refuses an input whose content can change.
            .args(["--option", "pure-eval", "true"]);
        let run = match &egress {
            Some(egress) => egress.give_to(run),
            None => run,
        };
        let fetched = self.run_fetch(action, run, access).await;
        fetched.map(drop).map_err(|error| match egress.and_then(|egress| egress.refused()) {
            Some(refused) => format!("its server leads elsewhere: {refused}"),
            None => words(&error, inputs),
        })
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
fn words(error: &NixError, inputs: &[&LockedInput]) -> String {
    let message = error.message();
    let first = message.lines().map(str::trim).find(|line| !line.is_empty() && *line != "error:").unwrap_or_default();
    let expected: Vec<&str> = inputs.iter().filter_map(|input| input.get("narHash").and_then(Value::as_str)).collect();
    let is_hash = |word: &str| ["sha1", "sha256", "sha512", "md5"].iter().any(|kind| word.contains(kind));
    let shown: Vec<&str> = first
        .split(' ')
        .map(|word| match word {
            // Nix puts what it found there before it compares the hash, and the cage can read the store.
            _ if word.contains("/nix/store/") => "(a path in the store)",
            _ if is_hash(word) && !expected.iter().any(|hash| word.contains(hash)) => "(another hash)",
            _ => word,
        })
        .collect();
    shown.join(" ").trim_start_matches("error: ").chars().take(MAX_WORDS).collect()
}
