//! `DescribeImages`.

use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure};
use jiff::Timestamp;

use super::page::page;
use super::parameters::{Parameters, combined, terms_of, unknown_filter};
use super::xml::Xml;
use crate::world::cloud::Cloud;

pub(super) fn describe(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let (mut terms, rest) = terms_of(parameters.filters(), "image-id", "name");
    let named = parameters.texts("ImageId");
    if !named.is_empty() {
        terms = combined(&terms, &named, |term, id| term.id = Some(id.to_owned()));
    }
    let owners = parameters.texts("Owner");
    if !owners.is_empty() {
        terms = combined(&terms, &owners, |term, owner| term.owner = Some(owner.to_owned()));
    }
    let Ec2Answer::Images(mut images) = cloud.apply(&Ec2Call::DescribeImages(terms), now)? else {
        return Ok(Xml::default());
    };
    for (name, values) in rest {
        match name.as_str() {
            "architecture" => images.retain(|image| {
                values.iter().any(|value| value == architecture(&image.architecture))
            }),
            "state" if values.iter().any(|value| value == "available") => {}
            other => return Err(unknown_filter(other)),
        }
    }
    let page = page(images, parameters, 1000)?;
    Ok(Xml::of(|xml| {
        xml.list("imagesSet", page.items, |xml, image| {
            xml.text("imageId", &image.id);
            xml.text("imageLocation", format!("amazon/{}", image.name));
            xml.text("imageState", "available");
            xml.text("creationDate", image.creation_date.strftime("%Y-%m-%dT%H:%M:%S.000Z"));
            xml.text("architecture", architecture(&image.architecture));
            xml.text("imageType", "machine");
            xml.text("name", &image.name);
            xml.text("rootDeviceType", "ebs");
            xml.text("virtualizationType", "hvm");
            if let Some((owner, tags, windows)) = cloud.image_details(&image.id) {
                xml.text("imageOwnerId", owner);
                xml.tags(tags);
                if windows {
                    xml.text("platform", "windows");
                }
            }
            if image.deprecated {
                xml.text("deprecationTime", image.creation_date);
            }
        });
        xml.optional("nextToken", page.next);
    }))
}

/// EC2's word for an architecture.
fn architecture(word: &str) -> &str {
    if word == "amd64" { "x86_64" } else { word }
}
