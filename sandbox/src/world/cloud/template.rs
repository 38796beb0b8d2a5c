//! Launch templates.

use std::collections::BTreeMap;

use drover_common::ec2::{Ec2Failure, LaunchTemplate, LaunchTemplateRequest, Tags};
use jiff::Timestamp;

use super::fleet::resource_id;
use super::network::tags_match;
use super::{Cloud, refuse};

/// Launch templates by name.
pub(super) type Templates = BTreeMap<String, StoredTemplate>;

/// A launch template and what EC2 adds to it.
#[derive(Clone, Debug)]
pub(super) struct StoredTemplate {
    id: String,
    created_at: Timestamp,
    pub(super) content: LaunchTemplateRequest,
}

impl Cloud {
    pub(super) fn create_launch_template(
        &mut self,
        request: &LaunchTemplateRequest,
        now: Timestamp,
    ) -> Result<String, Ec2Failure> {
        if request.name.len() < 3 || request.name.len() > 128 {
            let message = "LaunchTemplateName: must have 3 to 128 characters";
            return Err(refuse("InvalidLaunchTemplateName.MalformedException", message));
        }
        if let Some(known) = self.templates.get(&request.name) {
            return Ok(known.id.clone());
        }
        let id = resource_id(&mut self.random, "lt");
        let stored = StoredTemplate { id: id.clone(), created_at: now, content: request.clone() };
        self.templates.insert(request.name.clone(), stored);
        Ok(id)
    }

    pub(super) fn delete_launch_template(&mut self, name: &str) -> Result<(), Ec2Failure> {
        match self.templates.remove(name) {
            Some(_) => Ok(()),
            None => Err(refuse(
                "InvalidLaunchTemplateName.NotFoundException",
                format!("At least one of the launch templates specified ({name}) does not exist."),
            )),
        }
    }

    /// Those that bear all the tags.
    pub(super) fn matching_launch_templates(&self, tags: &Tags) -> Vec<LaunchTemplate> {
        self.templates
            .values()
            .filter(|stored| tags_match(tags, &stored.content.tags))
            .map(StoredTemplate::shown)
            .collect()
    }

    /// A launch template's id.
    pub(crate) fn launch_template_id(&self, name: &str) -> Option<&str> {
        self.templates.get(name).map(|stored| stored.id.as_str())
    }

    /// A launch template as EC2 shows it.
    pub(crate) fn launch_template(&self, name: &str) -> Option<LaunchTemplate> {
        self.templates.get(name).map(StoredTemplate::shown)
    }

    /// A launch template's name.
    pub(crate) fn launch_template_name(&self, id: &str) -> Option<&str> {
        let found = self.templates.iter().find(|(_, stored)| stored.id == id);
        found.map(|(name, _)| name.as_str())
    }
}

impl StoredTemplate {
    fn shown(&self) -> LaunchTemplate {
        LaunchTemplate {
            name: self.content.name.clone(),
            created_at: self.created_at,
            tags: self.content.tags.clone(),
        }
    }
}
