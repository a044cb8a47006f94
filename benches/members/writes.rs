//! What the API server has written, by what it counts of itself.

use std::collections::BTreeMap;

use crate::world::World;

/// How often each kind of object was written, by verb.
pub struct Writes(BTreeMap<String, f64>);

impl Writes {
    pub async fn now(world: &World) -> Self {
        let request = http::Request::get("/metrics").body(vec![]).unwrap();
        let text = world.install.client.request_text(request).await.unwrap();
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let Some((labels, count)) =
                line.strip_prefix("apiserver_request_total{").and_then(|it| it.split_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value.to_owned())
            };
            let (verb, resource) = (label("verb").unwrap(), label("resource").unwrap());
            let written = ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb.as_str());
            if written && label("code").is_some_and(|code| code.starts_with('2')) {
                let subresource = label("subresource").filter(|it| !it.is_empty());
                let part = subresource.map(|it| format!("/{it}")).unwrap_or_default();
                *all.entry(format!("{verb} {resource}{part}")).or_default() += count.parse::<f64>().unwrap();
            }
        }
        Self(all)
    }

    /// Prints what was written since then, a member.
    pub async fn print(&self, world: &World, what: &str, members: usize) {
        let now = Self::now(world).await;
        let members = f64::from(u32::try_from(members).unwrap());
        let each = |(name, count): (&String, &f64)| {
            let more = count - self.0.get(name).copied().unwrap_or_default();
            // What happens on the side, now and then.
            let share = more / members;
            (share >= 0.005).then(|| format!("{name} {share:.2}"))
        };
        let list: Vec<_> = now.0.iter().filter_map(each).collect();
        println!("  {what}, a member: {}", list.join(", "));
    }
}
