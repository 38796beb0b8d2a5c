//! Lines of the Prometheus text format, as they stream in. Names, labels and times are read as the format's
//! description has them (<https://prometheus.io/docs/instrumenting/exposition_formats/>); comments and
//! whatever is no sample are passed over.

/// The longest line that is looked at. A sample with some dozens of labels has under 4 kB.
const LONGEST_LINE: usize = 16 * 1024;

const BLANKS: [char; 3] = [' ', '\t', '\r'];

/// Cuts a body that comes in pieces into its lines. No more than one line is ever kept.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes the next piece and gives each line that is complete. A line that is too long or no UTF-8
    /// is left out, and so is a last one without an end: it may have been cut off.
    pub fn feed(&mut self, piece: &[u8], mut take: impl FnMut(&str)) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            self.keep(line);
            if let (false, Ok(line)) = (self.too_long, std::str::from_utf8(&self.begun)) {
                take(line);
            }
            self.begun.clear();
            self.too_long = false;
        }
        self.keep(rest);
    }

    fn keep(&mut self, part: &[u8]) {
        if self.too_long || self.begun.len().saturating_add(part.len()) > LONGEST_LINE {
            self.too_long = true;
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(part);
        }
    }
}

/// One sample: `name{label="value",…} value time`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exposed<'a> {
    pub(super) name: &'a str,
    labels: &'a str,
    pub(super) value: f64,
    /// When it was measured, milliseconds since 1970, where that is told.
    pub(super) at: Option<i64>,
}

impl<'a> Exposed<'a> {
    /// Reads a line; `None` for a comment and for what is no sample.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim_matches(BLANKS);
        let end = line.find(|letter: char| !is_of_name(letter)).filter(|&end| end > 0)?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.trim_start_matches(BLANKS).strip_prefix('{') {
            Some(rest) => {
                let (labels, rest) = rest.split_at_checked(end_of_labels(rest)?)?;
                (labels, rest.strip_prefix('}')?)
            }
            None => ("", rest.starts_with(BLANKS).then_some(rest)?),
        };
        let mut fields = rest.split(BLANKS).filter(|field| !field.is_empty());
        let value = fields.next()?.parse().ok()?;
        let at = match fields.next() {
            Some(time) => Some(time.parse().ok()?),
            None => None,
        };
        fields.next().is_none().then_some(Self { name, labels, value, at })
    }

    /// A label's value; `None` if it is not there or has escapes, which no name in Kubernetes has.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (key, after) = rest.trim_start_matches([' ', '\t', ',']).split_once('=')?;
            let quoted = after.trim_start_matches(BLANKS).strip_prefix('"')?;
            let (value, after) = quoted.split_at_checked(end_of_quotes(quoted)?)?;
            if key.trim_end_matches(BLANKS) == name {
                return (!value.contains('\\')).then_some(value);
            }
            rest = after.get(1..)?;
        }
    }
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')
}

/// Where the brace is that ends the labels; one within quotes does not.
fn end_of_labels(text: &str) -> Option<usize> {
    let mut start = 0_usize;
    loop {
        let rest = text.get(start..)?;
        let found = rest.find(['"', '}'])?;
        let place = start.saturating_add(found);
        if rest.get(found..)?.starts_with('}') {
            return Some(place);
        }
        let quoted = place.saturating_add(1);
        let end = end_of_quotes(text.get(quoted..)?)?;
        start = quoted.saturating_add(end).saturating_add(1);
    }
}

/// Where the quotation mark is that ends a value; one after a backslash does not.
fn end_of_quotes(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(place),
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_are_read_and_nothing_else() {
        let line = r#"pod_cpu{namespace="a b", pod = "x}\"y" ,empty=""} 1.5e+03 1700000000000"#;
        let sample = Exposed::parse(line).unwrap();
        assert_eq!(
            (sample.name, sample.value, sample.at),
            ("pod_cpu", 1500.0, Some(1_700_000_000_000))
        );
        assert_eq!((sample.label("namespace"), sample.label("empty")), (Some("a b"), Some("")));
        assert_eq!((sample.label("pod"), sample.label("none")), (None, None));
        assert_eq!(Exposed::parse("up 1\r").map(|sample| sample.value), Some(1.0));
        assert!(Exposed::parse("up +Inf").is_some_and(|sample| sample.value.is_infinite()));
        assert_eq!(
            Exposed::parse("up {a=\"b\"}\t7").and_then(|sample| sample.label("a")),
            Some("b")
        );
        for none in [
            "",
            "# HELP up is it",
            "up",
            "up one",
            "up 1 2 3",
            "up 1 x",
            "up{a=\"} 1",
            "{} 1",
            "up{a 1",
            "up} 1",
            "up{}} 1",
            "up-1 1",
        ] {
            assert_eq!(Exposed::parse(none), None, "{none:?}");
        }
        assert_eq!(Exposed::parse("up{a=b} 1").and_then(|sample| sample.label("a")), None);
    }

    #[test]
    fn lines_without_an_end_are_not_kept() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for _ in 0..1_000 {
            lines.feed(&[b'x'; 1_000], |line| seen.push(line.to_owned()));
            assert!(lines.begun.len() <= LONGEST_LINE);
        }
        lines.feed(b"\nnext\n\xff\nlast", |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["next"]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_arrive(
            text in "[a-z{}\"\\\\\n é]{0,200}", size in 1_usize..40
        ) {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.feed(piece, |line| seen.push(line.to_owned()));
            }
            let mut whole: Vec<&str> = text.split('\n').collect();
            whole.pop();
            prop_assert_eq!(seen, whole);
        }

        #[test]
        fn what_is_written_is_read(
            name in "[a-z_]{1,9}", pod in "[a-z0-9.-]{0,9}", noise in "[a-z{},= ]{0,9}",
            value in any::<i32>(), at in prop::option::of(any::<i64>())
        ) {
            let time = at.map_or(String::new(), |at| format!(" {at}"));
            let line = format!("{name}{{noise=\"{noise}\\\"\",pod=\"{pod}\"}} {value}{time}");
            let sample = Exposed::parse(&line).unwrap();
            prop_assert_eq!((sample.name, sample.value, sample.at), (name.as_str(), f64::from(value), at));
            prop_assert_eq!(sample.label("pod"), Some(pod.as_str()));
        }
    }
}
