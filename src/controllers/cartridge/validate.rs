//! Whether a Cartridge can be acted on, as far as its schema in the API could not tell.

use crate::api::cartridge::CartridgeSpec;
use crate::controllers::instance::build::OWN;
use crate::controllers::pod::AGENT_PORT;
use crate::controllers::schemas::Schemas;
use crate::controllers::template;

/// Checks a Cartridge.
///
/// # Errors
/// All that is wrong with it, and what to do, in words.
pub fn validate(spec: &CartridgeSpec, schemas: &Schemas) -> Result<(), String> {
    let schema = spec.values.as_ref().and_then(|schema| schemas.schema(schema).err());
    let schema = schema.map(|error| error.to_string());
    let template = template::parse(spec.pod_template.as_ref(), OWN).err();
    let template = template.map(|why| format!("`spec.podTemplate` {why}"));
    let taken = spec.ports.iter().find(|port| port.port == AGENT_PORT);
    let taken = taken.map(|port| {
        format!(
            "`spec.ports` must not use {AGENT_PORT}, as '{}' does: Millrace's agent listens there",
            port.name
        )
    });
    let problems: Vec<_> = schema.into_iter().chain(template).chain(taken).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_cannot_see_is_named_with_the_field() {
        let spec = |more: serde_json::Value| {
            let mut spec = json!({"image": "a:1"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<CartridgeSpec>(spec).unwrap()
        };
        let check = |more| validate(&spec(more), &Schemas::default());
        assert_eq!(
            check(
                json!({"values": {"type": "object"}, "podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}})
            ),
            Ok(())
        );
        let wrong = check(json!({"values": {"type": 7}})).unwrap_err();
        assert!(wrong.contains("spec.values.type"), "{wrong}");
        assert_eq!(
            check(json!({"podTemplate": {"spec": {"containers": [{"name": "millrace-agent"}]}}})),
            Err("`spec.podTemplate` must not hold a container 'millrace-agent': that one is Millrace's own"
                .into())
        );
        assert_eq!(
            check(json!({"podTemplate": {"spec": {"containers": [{"name": "application", "image": "b"}]}}})),
            Err("`spec.podTemplate` must not set the image of the cartridge's container: set the cartridge's `image`".into())
        );
        let wrong =
            check(json!({"podTemplate": {"spec": {"containers": [{"name": "application", "args": ["x"]}]}}}));
        assert!(wrong.unwrap_err().ends_with("set the cartridge's `args`"));
        let wrong = check(json!({"ports": [{"name": "agent", "port": 8687}]}));
        assert_eq!(
            wrong,
            Err("`spec.ports` must not use 8687, as 'agent' does: Millrace's agent listens there".into())
        );
    }
}
