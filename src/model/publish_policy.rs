//! The policy that says when claveld publishes a deployment.

/// The policy that says when claveld publishes a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishPolicy {
    /// Claveld publishes it as soon as it is evaluated. The agents wait for the caches.
    WhenEvaluated,
    /// Claveld waits until one of its caches has its store path, signed by one of its keys.
    WhenCached,
    /// Claveld waits until its caches have its whole closure, signed by its keys, and adds the pin of that content.
    WhenPinned,
}
