//! The arguments that say what a new root differs in, and their conversion into an amendment.

use std::time::SystemTime;

use super::keys::role_key;
use crate::cli::exit::Exit;
use crate::model::{ApprovalPolicy, IndexAgePolicy, KeyId, Pattern, Threshold, Timestamp};
use crate::trust::{Amendment, RoleName};

/// The roles of a new root.
#[derive(Debug, clap::Args)]
pub(super) struct RoleArguments {
    /// A key that signs roots: its public half, Nix's or OpenSSH's, or a file with it; may be given more than once.
    // A text, which is parsed after clap: an error of clap would show the argument, which may be a secret key.
    #[arg(long = "root-key", value_name = "[NAME=]KEY|FILE", allow_hyphen_values = true)]
    root_keys: Vec<String>,
    /// The number of root keys that have to sign a root.
    #[arg(long, value_name = "NUMBER")]
    root_threshold: Option<Threshold>,
    /// A key that signs the index and the documents: claveld's.
    #[arg(long = "publisher-key", value_name = "[NAME=]KEY|FILE", allow_hyphen_values = true)]
    publisher_keys: Vec<String>,
    /// The number of publisher keys that have to sign a document.
    #[arg(long, value_name = "NUMBER")]
    publisher_threshold: Option<Threshold>,
    /// A key that approves deployments.
    #[arg(long = "approver-key", value_name = "[NAME=]KEY|FILE", allow_hyphen_values = true)]
    approver_keys: Vec<String>,
    /// The number of approvals that are needed at least, wherever the root asks for any.
    #[arg(long, value_name = "NUMBER")]
    approver_threshold: Option<Threshold>,
    /// The deployments that have to be approved, and the number of approvals: `db-*=1`; may be given more than once.
    ///
    /// The pattern is compared with the names of the deployment, of its unit, and of each agent that takes it, without regard
    /// to case.
    #[arg(long = "approvals", value_name = "PATTERN=NUMBER", value_parser = policy)]
    approvals: Vec<ApprovalPolicy>,
    /// The agents that believe an index until this age, also where it has expired, because their site is rarely visited: `ship-*=45d`;
    /// may be given more than once.
    ///
    /// The pattern is compared with the name of the agent, without regard to case. It never makes an agent believe an index for a
    /// shorter time.
    #[arg(long = "index-age", value_name = "PATTERN=TIME", value_parser = index_age)]
    index_ages: Vec<IndexAgePolicy>,
    /// The time after which the root expires.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = humantime::parse_duration)]
    expires_after: std::time::Duration,
}

/// The parts of the root before that the new root leaves out.
#[derive(Debug, clap::Args)]
pub(super) struct RemovalArguments {
    /// A key that loses every role it has; may be given more than once.
    #[arg(long = "remove-key", value_name = "NAME")]
    remove: Vec<KeyId>,
    /// A pattern for which the root asks for no approvals any more; may be given more than once.
    #[arg(long = "no-approvals", value_name = "PATTERN")]
    drop_approvals: Vec<Pattern>,
    /// A pattern of agents for which an index may be no older than it says itself any more; may be given more than once.
    #[arg(long = "no-index-age", value_name = "PATTERN")]
    drop_index_ages: Vec<Pattern>,
    /// Begin a new epoch after a key was stolen: nothing that was signed before counts any more, and all versions
    /// and revisions begin at 1 again.
    #[arg(long)]
    raise_epoch: bool,
}

fn policy(text: &str) -> Result<ApprovalPolicy, String> {
    let (pattern, approvals) = text.rsplit_once('=').ok_or("write it like `db-*=1`")?;
    let pattern = pattern.parse().map_err(|error| format!("{error}"))?;
    Ok(ApprovalPolicy { approvals: approvals.parse().map_err(|error| format!("{error}"))?, pattern })
}

fn index_age(text: &str) -> Result<IndexAgePolicy, String> {
    let (pattern, age) = text.rsplit_once('=').ok_or("write it like `ship-*=45d`")?;
    let pattern = pattern.parse().map_err(|error| format!("{error}"))?;
    Ok(IndexAgePolicy { max_age: age.parse().map_err(|error| format!("{error}"))?, pattern })
}

impl RoleArguments {
    /// Whether the arguments name no key for the role.
    pub(super) fn has_no_key(&self, role: RoleName) -> bool {
        match role {
            RoleName::Approver => self.approver_keys.is_empty(),
            RoleName::Publisher => self.publisher_keys.is_empty(),
            RoleName::Root => self.root_keys.is_empty(),
        }
    }

    /// The time from which the root is expired.
    pub(super) fn expires(&self) -> Timestamp {
        Timestamp::from(SystemTime::now()).plus(self.expires_after)
    }

    /// Converts the arguments into an amendment.
    pub(super) fn amendment(&self, removals: Option<&RemovalArguments>) -> Result<Amendment, Exit> {
        let mut add = Vec::new();
        for (role, keys) in [
            (RoleName::Root, &self.root_keys),
            (RoleName::Publisher, &self.publisher_keys),
            (RoleName::Approver, &self.approver_keys),
        ] {
            for key in keys {
                add.push((role, role_key(key)?));
            }
        }
        let thresholds = [
            (RoleName::Root, self.root_threshold),
            (RoleName::Publisher, self.publisher_threshold),
            (RoleName::Approver, self.approver_threshold),
        ];
        let thresholds = thresholds.into_iter().filter_map(|(role, threshold)| Some((role, threshold?))).collect();
        let (approvals, index_ages) = (self.approvals.clone(), self.index_ages.clone());
        let amendment = Amendment { add, thresholds, approvals, index_ages, ..Amendment::default() };
        Ok(match removals {
            None => amendment,
            Some(RemovalArguments { remove, drop_approvals, drop_index_ages, raise_epoch }) => Amendment {
                remove: remove.clone(),
                drop_approvals: drop_approvals.clone(),
                drop_index_ages: drop_index_ages.clone(),
                raise_epoch: *raise_epoch,
                ..amendment
            },
        })
    }
}
