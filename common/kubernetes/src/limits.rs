//! How much is taken in from an API server before it counts as broken.

/// The most that is taken in at once of a list and of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects that a page of a list is asked for.
    pub objects: u32,
    /// Bytes of a page. A larger one is asked for again with fewer objects.
    pub page: usize,
    /// Bytes of a watch's line.
    pub line: usize,
    /// JSON values in a page or line: short ones take many times their length in memory.
    pub values: usize,
}

impl Limits {
    /// For all objects of a cluster: pages as client-go's pager asks for, of objects of Kubernetes'
    /// largest size.
    pub const CLUSTER: Self =
        Self { objects: 500, page: 800 * 1024 * 1024, line: 16 * 1024 * 1024, values: usize::MAX };
    /// For a Node and its pods, in a process that has little memory. A pod has some 500 values.
    pub const NODE: Self =
        Self { objects: 100, page: 4 * 1024 * 1024, line: 4 * 1024 * 1024, values: 200_000 };
}

/// Whether JSON may have more values than `most`. What separates values is counted within strings,
/// too, so that no parser is needed: the answer errs towards yes.
pub(crate) fn may_exceed(json: &[u8], most: usize) -> bool {
    let separates = |byte: &&u8| matches!(**byte, b',' | b'[' | b'{');
    json.len() > most && json.iter().filter(separates).take(most.saturating_add(1)).count() > most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_without_a_parser() {
        assert!(!may_exceed(b"[1,2,3]", 3));
        assert!(may_exceed(b"[1,2,3,4]", 3));
        assert!(may_exceed(b"[[[[", 3));
        assert!(!may_exceed(br#"{"long enough":"but only one"}"#, 3));
        assert!(!may_exceed(b"[1,2,3,4]", usize::MAX));
    }
}
