//! When a deployment is published.

/// When a deployment is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishPolicy {
    /// As soon as it is evaluated. The agents wait for their caches.
    WhenEvaluated,
    /// When one of its caches has it, signed by one of its keys.
    WhenCached,
    /// When its caches have all that it needs as well, signed by its keys: with the pin of that content.
    WhenPinned,
}
