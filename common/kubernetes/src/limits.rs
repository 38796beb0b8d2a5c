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

/// Whether JSON may have more values than `most`. What separates values is counted, so that no parser
/// is needed: the answer errs towards yes. An annotation may be a long JSON text itself, and is one
/// value.
pub(crate) fn may_exceed(json: &[u8], most: usize) -> bool {
    json.len() > most && separators(json).take(most.saturating_add(1)).count() > most
}

/// The bytes that separate values, outside strings. Where what follows is no JSON, neither a parser
/// takes more.
fn separators(json: &[u8]) -> impl Iterator<Item = u8> {
    let mut in_string = false;
    let mut escaped = false;
    json.iter().copied().filter(move |&byte| {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            return false;
        }
        in_string = byte == b'"';
        matches!(byte, b',' | b'[' | b'{')
    })
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

    #[test]
    fn a_text_is_one_value_whatever_is_in_it() {
        let annotated = serde_json::json!({"annotation": "[1,2,{\"a\":[\\\"3\\\\\"]},4]"});
        assert!(!may_exceed(annotated.to_string().as_bytes(), 1));
        // A quote that is escaped ends no text, and one after an escaped backslash does.
        assert!(!may_exceed(br#"["\",,,,"]"#, 1));
        assert!(may_exceed(br#"["\\",2,3,4]"#, 3));
        assert!(may_exceed(br#"["a","b","c","d"]"#, 3));
    }
}
