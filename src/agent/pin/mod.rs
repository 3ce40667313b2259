//! What deployments pin: holding content to a pin (`check`, pure), and fetching so that nothing else is ever activated
//! (`fetch`).

pub(super) mod check;
pub(super) mod fetch;
