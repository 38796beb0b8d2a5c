//! Splits a streamed body into lines.

use http_body_util::BodyExt;
use kube::client::Body;

use crate::execute::with_sources;

/// After a longer line the memory it took is given back.
const USUAL_LINE: usize = 256 * 1024;

/// Why there is no next line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LineError {
    /// It is longer than any may be.
    TooLong,
    /// The body broke off.
    BrokeOff(String),
}

/// The lines of a body, without their line feeds.
pub(crate) struct Lines<B = Body> {
    body: B,
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no line feed.
    searched: usize,
    longest: usize,
}

impl<B> Lines<B>
where
    B: BodyExt + Unpin,
    B::Data: AsRef<[u8]>,
    B::Error: std::error::Error + 'static,
{
    /// Lines of at most `longest` bytes.
    pub(crate) fn new(body: B, longest: usize) -> Self {
        Self { body, buffer: Vec::new(), searched: 0, longest }
    }

    /// The next line that isn't empty; `None` at the end. A last line without a line feed was cut
    /// off and is not returned. Safe to drop between bytes: nothing that was read is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(offset) = fresh.iter().position(|&byte| byte == b'\n') {
                let end = self.searched.saturating_add(offset);
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                self.searched = 0;
                if self.buffer.len() <= USUAL_LINE {
                    self.buffer.shrink_to(USUAL_LINE);
                }
                if !line.is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.searched > self.longest {
                return Err(LineError::TooLong);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(data.as_ref());
                    }
                }
                Some(Err(error)) => return Err(LineError::BrokeOff(with_sources(&error))),
                None => return Ok(None),
            }
        }
    }
}
