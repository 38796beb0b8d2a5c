//! Cuts a stream of JSON documents into objects, without reading what is in them.
//!
//! A list of a hundred thousand pods is never held as a whole: each of its items is handed on when
//! its last brace was seen.

use super::document::{Head, Piece, Place, Text};

/// Where the scanner is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Between documents.
    #[default]
    Outside,
    /// In a document, not in the items of its list.
    Envelope,
    /// In the items, between two of them.
    Items,
    /// In an item.
    Item,
}

/// Nesting inside of a list's items, between two of them.
const DEPTH_OF_ITEMS: usize = 2;

/// The scanner.
#[derive(Debug, Default)]
pub(crate) struct JsonSplitter {
    /// Text that is not handed on yet.
    buffer: Vec<u8>,
    /// Where in the buffer the document, the item, or what follows the items begins.
    start: usize,
    mode: Mode,
    /// Open braces and brackets.
    depth: usize,
    in_string: bool,
    escaped: bool,
    string_start: usize,
    /// Whether the latest string was `items`, and whether it is the key of what comes now.
    items_string: bool,
    items_key: bool,
    documents: usize,
    items: usize,
    /// A list's text up to its items, with their opening bracket.
    list: Option<Vec<u8>>,
    list_head: Head,
    /// Items that do not say their kind, until the list does.
    held: Vec<Piece>,
}

/// A document that is none, and why.
pub(crate) type Broken = (Place, String);

impl JsonSplitter {
    /// Takes more of the stream; complete objects go to `pieces`. Returns how much of it was taken: all, or what
    /// comes before a dash between documents.
    ///
    /// # Errors
    /// The document that is none, and why.
    pub(crate) fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<usize, Broken> {
        let before = self.buffer.len();
        let mut at = before;
        self.buffer.extend_from_slice(bytes);
        while let Some(&byte) = self.buffer.get(at) {
            if self.in_string {
                self.scan_string(byte, at);
            } else {
                match byte {
                    b'"' => {
                        self.in_string = true;
                        self.string_start = at;
                        self.refuse_outside(at)?;
                    }
                    b'{' | b'[' => self.open(byte, at)?,
                    b'}' | b']' => self.close(byte, at, pieces)?,
                    b' ' | b'\n' | b'\r' | b'\t' => {}
                    b':' if self.mode == Mode::Envelope && self.depth == 1 => {
                        self.items_key = self.items_string;
                    }
                    b',' if self.mode == Mode::Envelope && self.depth == 1 => {
                        self.items_key = false;
                        self.items_string = false;
                    }
                    b',' if self.mode == Mode::Items => {}
                    b'-' if self.mode == Mode::Outside => {
                        self.buffer.clear();
                        return Ok(at - before);
                    }
                    _ => self.refuse_outside(at)?,
                }
            }
            at += 1;
        }
        self.forget_handed_on();
        Ok(bytes.len())
    }

    /// How many documents were begun.
    pub(crate) fn documents(&self) -> usize {
        self.documents
    }

    /// That a line between documents is none.
    pub(crate) fn no_document(&self, line: &str) -> Broken {
        let shown: String = line.chars().take(20).collect();
        (self.place(), format!("not an object: {shown:?}"))
    }

    /// The stream is over.
    ///
    /// # Errors
    /// The document it ended in.
    pub(crate) fn finish(&self) -> Result<(), Broken> {
        match self.mode {
            Mode::Outside => Ok(()),
            _ => Err((self.place(), "not JSON: the input ends in the middle of it".to_owned())),
        }
    }

    fn scan_string(&mut self, byte: u8, at: usize) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                if self.mode == Mode::Envelope && self.depth == 1 {
                    let text = self.buffer.get(self.string_start..=at);
                    self.items_string = text == Some(br#""items""#);
                }
            }
            _ => {}
        }
    }

    fn place(&self) -> Place {
        let item = matches!(self.mode, Mode::Items | Mode::Item).then_some(self.items);
        Place { document: self.documents + usize::from(self.mode == Mode::Outside), item }
    }

    /// Only objects may stand between documents and between items.
    fn refuse_outside(&self, at: usize) -> Result<(), Broken> {
        match self.mode {
            Mode::Envelope | Mode::Item => Ok(()),
            Mode::Outside | Mode::Items => {
                let rest = self.buffer.get(at..).unwrap_or_default();
                let shown = String::from_utf8_lossy(rest.get(..20).unwrap_or(rest)).into_owned();
                Err((self.place(), format!("not an object: {shown:?}")))
            }
        }
    }

    fn open(&mut self, byte: u8, at: usize) -> Result<(), Broken> {
        match self.mode {
            Mode::Outside | Mode::Items if byte == b'[' => return self.refuse_outside(at),
            Mode::Outside => {
                self.documents += 1;
                self.items = 0;
                self.mode = Mode::Envelope;
                self.start = at;
                self.items_key = false;
                self.items_string = false;
            }
            Mode::Items => {
                self.mode = Mode::Item;
                self.start = at;
            }
            Mode::Envelope => {
                if self.depth == 1 && byte == b'[' && self.items_key && self.list.is_none() {
                    let text = self.buffer.get(self.start..=at).unwrap_or_default().to_vec();
                    self.list_head = Head::of_json(&text);
                    self.list = Some(text);
                    self.mode = Mode::Items;
                }
            }
            Mode::Item => {}
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, byte: u8, at: usize, pieces: &mut Vec<Piece>) -> Result<(), Broken> {
        match self.mode {
            Mode::Outside => return self.refuse_outside(at),
            Mode::Items if byte == b'}' => return self.refuse_outside(at),
            Mode::Items => {
                self.mode = Mode::Envelope;
                self.start = at;
                self.items_key = false;
                self.items_string = false;
            }
            Mode::Item if self.depth == DEPTH_OF_ITEMS + 1 => {
                let text = self.buffer.get(self.start..=at).unwrap_or_default().to_vec();
                self.hand_on_item(text, pieces);
                self.mode = Mode::Items;
                self.items += 1;
            }
            Mode::Envelope if self.depth == 1 => {
                let text = self.buffer.get(self.start..=at).unwrap_or_default().to_vec();
                self.end_document(text, pieces);
                self.mode = Mode::Outside;
            }
            Mode::Envelope | Mode::Item => {}
        }
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    fn hand_on_item(&mut self, text: Vec<u8>, pieces: &mut Vec<Piece>) {
        let own = Head::of_json(&text);
        let place = self.place();
        if !own.kind.is_empty() {
            pieces.push(Piece { place, text: Text::Json(own, text) });
        } else if self.list_head.is_list() {
            pieces.push(Piece { place, text: Text::Json(self.list_head.of_items(), text) });
        } else {
            self.held.push(Piece { place, text: Text::Json(own, text) });
        }
    }

    fn end_document(&mut self, text: Vec<u8>, pieces: &mut Vec<Piece>) {
        let place = self.place();
        let Some(mut envelope) = self.list.take() else {
            let head = Head::of_json(&text);
            pieces.push(Piece { place, text: Text::Json(head, text) });
            return;
        };
        envelope.extend_from_slice(&text);
        let head = Head::of_json(&envelope);
        let held = std::mem::take(&mut self.held);
        let (head, held) = head.of_envelope(held);
        pieces.extend(held);
        pieces.push(Piece { place, text: Text::Json(head, envelope) });
    }

    /// Drops the text that is not needed any more.
    fn forget_handed_on(&mut self) {
        let keep = match self.mode {
            Mode::Outside | Mode::Items => self.buffer.len(),
            Mode::Envelope | Mode::Item => self.start,
        };
        self.buffer.drain(..keep);
        self.start = self.start.saturating_sub(keep);
        self.string_start = self.string_start.saturating_sub(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, step: usize) -> Result<Vec<String>, Broken> {
        let mut splitter = JsonSplitter::default();
        let mut pieces = Vec::new();
        for chunk in text.as_bytes().chunks(step) {
            assert_eq!(splitter.feed(chunk, &mut pieces)?, chunk.len());
        }
        splitter.finish()?;
        let short = pieces.into_iter().map(|piece| match piece.text {
            Text::Json(head, text) => {
                format!("{}: {} {}", piece.place, head.kind, String::from_utf8(text).unwrap())
            }
            Text::Yaml(..) => unreachable!(),
        });
        Ok(short.collect())
    }

    #[test]
    fn lists_are_cut_wherever_the_stream_is() {
        let text = r#" {"kind":"A","items":[{"not":"a list"}]}
            {"apiVersion":"v1","items":[{"kind":"Pod","x":"}]\"{"},{"kind":"Node"}],"kind":"List"}
            {"kind":"PodList","items":[{"a":[1,{}]}],"metadata":{"items":[7]}}
            {"items":[{"a":1}],"kind":"NodeList"} {"items":[]} {"metadata":{"items":[{}]}}"#;
        let whole = split(text, text.len()).unwrap();
        assert_eq!(
            whole,
            [
                r#"document 1: A {"kind":"A","items":[]}"#,
                r#"document 2, items[0]: Pod {"kind":"Pod","x":"}]\"{"}"#,
                r#"document 2, items[1]: Node {"kind":"Node"}"#,
                r#"document 2: List {"apiVersion":"v1","items":[],"kind":"List"}"#,
                r#"document 3, items[0]: Pod {"a":[1,{}]}"#,
                r#"document 3: PodList {"kind":"PodList","items":[],"metadata":{"items":[7]}}"#,
                r#"document 4, items[0]: Node {"a":1}"#,
                r#"document 4: NodeList {"items":[],"kind":"NodeList"}"#,
                r#"document 5: List {"items":[]}"#,
                r#"document 6:  {"metadata":{"items":[{}]}}"#,
            ]
        );
        for step in 1..40 {
            assert_eq!(split(text, step).unwrap(), whole, "{step}");
        }
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (text, expected) in [
            ("7", r#"document 1: not an object: "7""#),
            ("[{}]", r#"document 1: not an object: "[{}]""#),
            (r#"{} "x""#, r#"document 2: not an object: "\"x\"""#),
            (r#"{"items":[{},7]}"#, r#"document 1, items[1]: not an object: "7]}""#),
            (r#"{"items":[{},[]]}"#, r#"document 1, items[1]: not an object: "[]]}""#),
            (
                r#"{"items":[{}"#,
                "document 1, items[1]: not JSON: the input ends in the middle of it",
            ),
            (r#"{"a":"#, "document 1: not JSON: the input ends in the middle of it"),
            ("}", r#"document 1: not an object: "}""#),
        ] {
            let (place, reason) = split(text, 100).unwrap_err();
            assert_eq!(format!("{place}: {reason}"), expected, "{text}");
        }
    }
}
