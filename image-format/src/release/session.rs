//! One machine asking one repository: the state it keeps, the chain it follows, and its two clocks.
//!
//! Knows the order in which these must be used. Refuses to know mirrors and files: a caller brings the bytes and
//! keeps [`TrustSession::trust_state`] after each call, whether that succeeded or not.
//! Invariant: the moment that documents are judged by is that of the state as it is now. A root that was just
//! reached may have set it back, and what failed after that root must not make a machine forget the root.

use super::paths::ChannelName;
use super::root::{FollowRootsError, TrustedRoot};
use super::time::UnixTime;
use super::trust::{AcceptedChannel, TrustState, VerifyChannelError, verify_channel};

/// What a machine knows while it asks.
#[derive(Debug, Clone)]
pub struct TrustSession {
    state: TrustState,
    root: TrustedRoot,
    clock: UnixTime,
    built: UnixTime,
}

impl TrustSession {
    /// Begins with what was kept, the root of the running image, what the clock says, and when the running image was
    /// built.
    #[must_use]
    pub fn begin_session(
        mut state: TrustState,
        image: TrustedRoot,
        clock: UnixTime,
        built: UnixTime,
    ) -> Self {
        let root = state.newest_root(image);
        state.record_root(&root);
        Self { state, root, clock, built }
    }

    /// What must be kept, and synced before anything is done because of it.
    #[must_use]
    pub const fn trust_state(&self) -> &TrustState {
        &self.state
    }

    /// The newest root that is believed.
    #[must_use]
    pub const fn trusted_root(&self) -> &TrustedRoot {
        &self.root
    }

    /// The moment that documents are judged by.
    #[must_use]
    pub fn judged_time(&self) -> UnixTime {
        self.state.judged_time(self.clock, self.built)
    }

    /// Follows the chain of roots: see [`TrustedRoot::follow_chain`]. What was reached before an error is in the state.
    pub fn follow_roots<E: std::error::Error + 'static>(
        &mut self,
        fetch: impl FnMut(u64) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<u64, FollowRootsError<E>> {
        let followed = self.root.follow_chain(fetch);
        self.state.record_root(&self.root);
        followed
    }

    /// Judges a channel's metadata, and remembers it if it is accepted.
    pub fn accept_channel(
        &mut self,
        envelope: &[u8],
        name: &ChannelName,
    ) -> Result<AcceptedChannel, VerifyChannelError> {
        let now = self.judged_time();
        let accepted = verify_channel(envelope, name, &self.root, &self.state, now)?;
        self.state.record_channel(&accepted, now);
        Ok(accepted)
    }
}
