//! What a person or a unit may ask of the boot loaders.

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoaderOrder {
    /// Compare only.
    Check,
    /// Replace what is damaged or older.
    Repair,
}
