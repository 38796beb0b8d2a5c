//! Cuts a YAML stream into documents, and lists into their items, without reading what is in them.
//!
//! Items are told by how they are laid out: `items:` at the margin, and dashes below it that all
//! stand in one column, as kubectl and every other printer of block style has it.

use super::document::{Head, Piece, Place, Text};
use super::prune::Pruner;

/// The scanner.
#[derive(Debug, Default)]
pub(crate) struct YamlSplitter {
    documents: usize,
    /// The document's text, its items left out.
    envelope: String,
    head: Head,
    items: Option<Items>,
    /// Items that do not say their kind, until the list does.
    held: Vec<Piece>,
}

/// The items of a list.
#[derive(Debug, Default)]
struct Items {
    /// Column of their dashes, once the first was seen.
    column: Option<usize>,
    /// Whether what comes still belongs to them.
    open: bool,
    count: usize,
    item: String,
    pruner: Pruner,
}

impl YamlSplitter {
    /// A scanner of what follows so many documents.
    pub(crate) fn after(documents: usize) -> Self {
        Self { documents, ..Self::default() }
    }

    /// Takes the next line, without its line feed; complete objects go to `pieces`.
    pub(crate) fn feed(&mut self, line: &str, pieces: &mut Vec<Piece>) {
        let marker = line.trim_end();
        if marker == "---" || marker == "..." || line.starts_with("--- ") {
            self.end_document(pieces);
            self.envelope.push_str(line.strip_prefix("---").unwrap_or_default());
            self.envelope.push('\n');
            return;
        }
        if !self.take_item_line(line, pieces) {
            self.take_envelope_line(line);
        }
    }

    /// The stream is over.
    pub(crate) fn finish(&mut self, pieces: &mut Vec<Piece>) {
        self.end_document(pieces);
    }

    /// The document that is being read.
    pub(crate) fn here(&self) -> Place {
        self.place(None)
    }

    fn place(&self, item: Option<usize>) -> Place {
        Place { document: self.documents + 1, item }
    }

    /// Takes a line that belongs to the items; false if it does not.
    fn take_item_line(&mut self, line: &str, pieces: &mut Vec<Piece>) -> bool {
        let Some(items) = self.items.as_mut().filter(|items| items.open) else { return false };
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        if text.is_empty() || (text.starts_with('#') && items.column.is_none()) {
            items.item.push('\n');
            return true;
        }
        let column = *items.column.get_or_insert(indent);
        let begins = indent == column && (text == "-" || text.starts_with("- "));
        if begins {
            self.end_item(pieces);
        }
        let Some(items) = self.items.as_mut() else { return false };
        if begins || indent >= column + 2 {
            let shown = if begins { text.get(2..) } else { line.get(column + 2..) };
            items.pruner.push(shown.unwrap_or_default(), &mut items.item);
            return true;
        }
        items.open = text.starts_with('#');
        items.open
    }

    fn take_envelope_line(&mut self, line: &str) {
        self.envelope.push_str(line);
        self.envelope.push('\n');
        match line.split_once(':') {
            Some(("items", "")) if self.items.is_none() => {
                self.items = Some(Items { open: true, ..Items::default() });
            }
            Some(("apiVersion", value)) => unquoted(value).clone_into(&mut self.head.api_version),
            Some(("kind", value)) => unquoted(value).clone_into(&mut self.head.kind),
            _ => {}
        }
    }

    fn end_item(&mut self, pieces: &mut Vec<Piece>) {
        let Some(items) = self.items.as_mut() else { return };
        items.pruner = Pruner::default();
        if items.item.trim().is_empty() {
            items.item.clear();
            return;
        }
        let text = std::mem::take(&mut items.item);
        let index = items.count;
        items.count += 1;
        let says_its_kind = text.lines().any(|line| line.starts_with("kind:"));
        let place = self.place(Some(index));
        let knows = says_its_kind || (self.head.is_list() && self.held.is_empty());
        let head = if self.head.is_list() { self.head.of_items() } else { Head::default() };
        let piece = Piece { place, text: Text::Yaml(head, text) };
        if knows {
            pieces.push(piece);
        } else {
            self.held.push(piece);
        }
    }

    fn end_document(&mut self, pieces: &mut Vec<Piece>) {
        self.end_item(pieces);
        let envelope = std::mem::take(&mut self.envelope);
        let head = std::mem::take(&mut self.head);
        let had_items = self.items.take().is_some_and(|items| items.column.is_some());
        let blank = envelope
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if had_items {
            let (head, held) = head.of_envelope(std::mem::take(&mut self.held));
            pieces.extend(held);
            pieces.push(Piece { place: self.place(None), text: Text::Yaml(head, envelope) });
        } else if !blank {
            let place = self.place(None);
            pieces.push(Piece { place, text: Text::Yaml(Head::default(), envelope) });
        } else if self.documents == 0 {
            // What stands before a stream's first `---` is no document if there is nothing.
            return;
        }
        self.documents += 1;
    }
}

fn unquoted(value: &str) -> &str {
    value.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut splitter = YamlSplitter::default();
        let mut pieces = Vec::new();
        text.lines().for_each(|line| splitter.feed(line, &mut pieces));
        splitter.finish(&mut pieces);
        let short = pieces.into_iter().map(|piece| match piece.text {
            Text::Yaml(head, text) => format!("{}: {} {text:?}", piece.place, head.kind),
            Text::Json(..) => unreachable!(),
        });
        short.collect()
    }

    #[test]
    fn lists_are_cut_however_their_items_are_indented() {
        let kubectl = "apiVersion: v1\nitems:\n- kind: Pod\n  a:\n  - b\n\n  c: |\n    - d\n- kind: Node\n\
                       kind: List\nmetadata:\n  items:\n  - x\n";
        let items = [
            r#"document 1, items[0]:  "kind: Pod\na:\n- b\n\nc: |\n  - d\n""#,
            r#"document 1, items[1]:  "kind: Node\n""#,
        ];
        assert_eq!(split(kubectl)[..2], items);
        let indented = "items:\n  - kind: Pod\n    a:\n    - b\n\n    c: |\n      - d\n  -\n    kind: Node\nkind: List\n";
        assert_eq!(split(indented)[0], items[0]);
        assert_eq!(split(indented)[1], r#"document 1, items[1]:  "\nkind: Node\n""#);
    }

    #[test]
    fn documents_are_numbered_from_the_first_that_holds_something() {
        assert_eq!(
            split(
                "# c\n---\na: 1\n---\n\n--- {b: 2}\nitems: []\n...\n---\nkind: PodList\nitems:\n- a: 1\n"
            ),
            [
                r#"document 1:  "\na: 1\n""#,
                r#"document 3:  " {b: 2}\nitems: []\n""#,
                r#"document 5, items[0]: Pod "a: 1\n""#,
                r#"document 5: PodList "\nkind: PodList\nitems:\n""#,
            ]
        );
    }

    #[test]
    fn items_that_do_not_say_their_kind_get_it_from_the_list() {
        let late = split("items:\n- a: 1\n- a: 2\nkind: NodeList\n");
        assert_eq!(
            late,
            [
                r#"document 1, items[0]: Node "a: 1\n""#,
                r#"document 1, items[1]: Node "a: 2\n""#,
                r#"document 1: NodeList "items:\nkind: NodeList\n""#,
            ]
        );
        let no_list = split("items:\n- a: 1\nkind: Menu\n");
        assert_eq!(no_list, [r#"document 1: Menu "items:\nkind: Menu\n""#]);
    }
}
