//! MIME multipart archives, as cloud-init reads them.

use super::UserDataError;

/// The boundary of archives made here.
const BOUNDARY: &str = "//";

/// One part of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its header lines.
    headers: String,
    /// Its content.
    body: String,
}

impl Part {
    pub(super) fn new(content_type: &str, body: impl Into<String>) -> Self {
        Self { headers: format!("Content-Type: {content_type}"), body: body.into() }
    }
}

/// The user's own parts: an archive's, or one of the type that the first line tells.
pub(super) fn user_parts(user_data: &str) -> Result<Vec<Part>, UserDataError> {
    let text = user_data.replace("\r\n", "\n");
    let trimmed = text.trim_start();
    if trimmed.is_empty() {
        return Ok(Vec::new());
    }
    let head: String = trimmed.chars().take(32).flat_map(char::to_lowercase).collect();
    if head.starts_with("mime-version:") || head.starts_with("content-type: multipart/") {
        return archive_parts(trimmed);
    }
    let content_type = if head.starts_with("apiversion:") && trimmed.contains("node.eks.aws") {
        "application/node.eks.aws"
    } else if head.starts_with("#cloud-config") {
        "text/cloud-config; charset=\"us-ascii\""
    } else {
        "text/x-shellscript; charset=\"us-ascii\""
    };
    Ok(vec![Part::new(content_type, trimmed)])
}

fn archive_parts(text: &str) -> Result<Vec<Part>, UserDataError> {
    let (headers, rest) = text.split_once("\n\n").ok_or(UserDataError::Boundary)?;
    let boundary = headers
        .split_once("boundary=")
        .map(|(_, rest)| rest.split([';', '\n']).next().unwrap_or_default().trim())
        .map(|boundary| boundary.trim_matches('"'))
        .filter(|boundary| !boundary.is_empty())
        .ok_or(UserDataError::Boundary)?;
    let separator = format!("--{boundary}");
    let end = format!("--{boundary}--");
    let mut parts = Vec::new();
    let mut lines: Option<Vec<&str>> = None;
    for line in rest.lines() {
        let mark = line.trim_end();
        if mark == separator || mark == end {
            parts.extend(lines.take().map(|lines| part(&lines)));
            if mark == end {
                return Ok(parts);
            }
            lines = Some(Vec::new());
        } else if let Some(lines) = &mut lines {
            lines.push(line);
        }
    }
    // The end may be missing: what there is counts.
    parts.extend(lines.map(|lines| part(&lines)));
    Ok(parts)
}

fn part(lines: &[&str]) -> Part {
    let split = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
    let (headers, body) = lines.split_at(split);
    Part { headers: headers.join("\n"), body: body.get(1..).unwrap_or_default().join("\n") }
}

/// An archive of these parts.
pub(super) fn archive(parts: &[Part]) -> String {
    let mut text =
        format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n");
    for part in parts {
        text.push_str(&format!("--{BOUNDARY}\n{}\n\n", part.headers));
        text.push_str(part.body.trim_end_matches('\n'));
        text.push_str("\n\n");
    }
    text.push_str(&format!("--{BOUNDARY}--\n"));
    text
}
