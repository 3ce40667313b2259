//! Makes a publisher from the configuration.

use std::path::PathBuf;

use super::mirror_states::note_published;
use crate::config::PublishConfig;
use crate::disk::{self, Access, Durability};
use crate::publish::{OperationReport, OperatorRequest, PublishError, PublishSettings, Publisher};
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

/// Fulfils an operator's request, and tells a running daemon about it.
pub async fn operate(config: &PublishConfig, request: &OperatorRequest) -> Result<OperationReport, PublishError> {
    let report = publisher(config)?.operate(request).await?;
    note_published(config, Some(&report.commit));
    let told = disk::replace(
        &operations(config).join("last"),
        report.commit.as_bytes(),
        Access::Everyone,
        Durability::Unsynced,
    );
    if let Err(error) = told {
        tracing::warn!(%error, "a running claveld finds out about it at its next poll");
    }
    Ok(report)
}

/// The folder in which an operator's request leaves a word for the daemon.
pub(super) fn operations(config: &PublishConfig) -> PathBuf {
    config.state_directory.join("operations")
}

/// The place and the manner of publishing.
pub(super) fn settings(config: &PublishConfig) -> PublishSettings {
    PublishSettings {
        repository: config.repository.clone(),
        branch: config.branch.clone(),
        validity: config.validity,
        state_directory: config.state_directory.clone(),
        policy: config.policy,
        author: config.author.clone(),
    }
}
