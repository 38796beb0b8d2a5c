//! XML as EC2 writes it.

use std::fmt::Display;

use quick_xml::escape::escape;

/// EC2's namespace; the date is its API version.
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// The content of an element.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    /// Content made by a function.
    pub(super) fn of(write: impl FnOnce(&mut Self)) -> Self {
        let mut xml = Self::default();
        write(&mut xml);
        xml
    }

    /// An element with text.
    pub(super) fn text(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        self.wrap(name, |xml| xml.0.push_str(&escape(value.as_str())));
    }

    /// An element with text, where there is a value.
    pub(super) fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// An element with content.
    pub(super) fn wrap(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.0.extend(["<", name, ">"]);
        write(self);
        self.0.extend(["</", name, ">"]);
    }

    /// A list: one `item` each.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.wrap(name, |xml| {
            for item in items {
                xml.wrap("item", |xml| write(xml, item));
            }
        });
    }

    /// A list of texts.
    pub(super) fn texts<T: Display>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.wrap(name, |xml| {
            for item in items {
                xml.text("item", item);
            }
        });
    }

    /// A `tagSet`.
    pub(super) fn tags(&mut self, tags: &drover_common::ec2::Tags) {
        self.list("tagSet", tags, |xml, (key, value)| {
            xml.text("key", key);
            xml.text("value", value);
        });
    }
}

/// A whole response to an action.
pub(super) fn response(action: &str, request_id: &str, content: &Xml) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{NAMESPACE}\">\
         <requestId>{request_id}</requestId>{}</{action}Response>",
        content.0
    )
}

/// A whole error response.
pub(super) fn error(code: &str, message: &str, request_id: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{}</Code>\
         <Message>{}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>",
        escape(code),
        escape(message)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_lists_have_items() {
        let content = Xml::of(|xml| {
            xml.text("a", "<&>");
            xml.texts("list", [1, 2]);
            xml.optional("none", None::<u32>);
        });
        let text = response("Act", "r-1", &content);
        assert!(text.contains("<a>&lt;&amp;&gt;</a><list><item>1</item><item>2</item></list>"));
        assert!(text.contains("<ActResponse xmlns=") && text.ends_with("</ActResponse>"));
        assert!(!text.contains("none"));
        assert!(error("Code", "a<b", "r-1").contains("<Message>a&lt;b</Message>"));
    }
}
