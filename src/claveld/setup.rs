//! Makes a publisher from the configuration.

use crate::config::PublishConfig;
use crate::publish::{PublishError, PublishSettings, Publisher};
use crate::signers::Signers;
use crate::store;
use crate::trust::Anchor;

/// The longest time that one operation on a store or a cache may take.
const STORE_DEADLINE: std::time::Duration = std::time::Duration::from_mins(2);

/// The publisher that `config` describes: reads its keys and its root.
pub fn publisher(config: &PublishConfig) -> Result<Publisher, PublishError> {
    let signers = Signers::read(&config.secret_keys)?;
    let anchor = Anchor::read(&config.root)?;
    let store = store::open(None, STORE_DEADLINE, store::Output::Capture);
    Ok(Publisher::new(settings(config), signers, anchor, store))
}

/// The place and the manner of publishing.
pub(super) fn settings(config: &PublishConfig) -> PublishSettings {
    PublishSettings {
        repository: config.repository.clone(),
        branch: config.branch.clone(),
        validity: config.validity,
        state_directory: config.state_directory.clone(),
        policy: config.policy,
    }
}
