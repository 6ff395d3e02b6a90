//! How a verb ends badly.
//!
//! Knows nothing of the verbs, so that each may end by it and none has to know another.

use std::error::Error;

/// How a verb ended badly.
#[derive(Debug)]
pub(crate) struct CommandFailure(pub(crate) Box<dyn Error + Send + Sync>);

impl<E: Error + Send + Sync + 'static> From<E> for CommandFailure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}
