//! Which dead letters are meant.

use anyhow::bail;
use clap::{Args, value_parser};

use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::broker::dead_letters::replay::Place;
use crate::broker::dead_letters::{Letter, Selection};

/// A selection by place.
#[derive(Clone, Debug, Args)]
pub struct SelectArgs {
    /// Those of one namespace
    #[arg(short, long, value_name = "NAMESPACE", group = "scope")]
    namespace: Option<NamespaceName>,
    /// Those of all namespaces
    #[arg(short = 'A', long, group = "scope")]
    all_namespaces: bool,
    /// Those of the flow of this name
    #[arg(long, value_name = "FLOW")]
    flow: Option<FlowName>,
    /// Those of the node of this id
    #[arg(long, value_name = "NODE")]
    node: Option<NodeId>,
}

impl SelectArgs {
    /// What is selected; all where nothing is said.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection { namespace: self.namespace.clone(), flow: self.flow.clone(), node: self.node.clone() }
    }
}

/// Letters by id, or all of a selection.
#[derive(Clone, Debug, Args)]
pub struct WhichArgs {
    /// Their ids, as `list` gives them; with a selection they must belong to it
    #[arg(value_name = "ID", required_unless_present = "all", value_parser = value_parser!(u64).range(1..))]
    pub ids: Vec<u64>,
    /// All that are selected: by -n, or in all namespaces by -A
    #[arg(long, requires = "scope", conflicts_with = "ids")]
    pub all: bool,
    #[command(flatten)]
    select: SelectArgs,
}

impl WhichArgs {
    /// What is selected.
    #[must_use]
    pub fn selection(&self) -> Selection {
        self.select.selection()
    }
}

/// One letter that was named by its id and belongs to what was selected.
///
/// # Errors
/// It is not there, or it does not belong.
pub fn named<T>(id: u64, found: Option<(Letter, T)>, selection: &Selection) -> anyhow::Result<(Letter, T)> {
    let Some((letter, message)) = found else {
        bail!("there is no dead letter {id}: it was replayed, dropped or too old, or there never was one");
    };
    if !selection.holds(&letter) {
        bail!("dead letter {id} is none of those selected: it is one of {}", Place::of(&letter));
    }
    Ok((letter, message))
}
