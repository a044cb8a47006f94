//! The flows that a runner has nodes of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::future::join_all;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::broker::work::{FlowWork, Handler, Loaded, NodeWork};
use crate::broker::{Broker, subject};
use crate::jq::pool::{Lane, Pool};
use crate::metrics::Metrics;
use crate::pump::edges::Edges;
use crate::pump::metrics::PumpMetrics;
use crate::pump::{Place, Pump, step};

use super::builtin::http::Web;
use super::builtin::{self, Tools};
use super::desired::News;

/// How long a node that is to stop may finish what it has; the rest is given back.
const FINISH: Duration = Duration::from_secs(30);

/// All flows of a namespace, as far as they have built-in nodes.
#[derive(Debug)]
pub struct Flows {
    broker: Broker,
    namespace: NamespaceName,
    pod: String,
    pool: Arc<Pool>,
    web: Web,
    metrics: PumpMetrics,
    nodes: Gauge,
    running: HashMap<FlowName, Running>,
}

/// One flow.
#[derive(Debug)]
struct Running {
    /// Where in the bucket it was read.
    sequence: u64,
    work: Option<FlowWork>,
    nodes: BTreeMap<NodeId, (NodeWork, Arc<Pump>)>,
    problems: Vec<String>,
    /// The pumps that finish what they have.
    leaving: Vec<Arc<Pump>>,
    lane: Arc<Lane>,
    /// The answer that is being given.
    answer: Option<AbortHandle>,
}

impl Flows {
    /// None yet.
    #[must_use]
    pub fn new(broker: Broker, namespace: NamespaceName, pod: String, web: Web, metrics: &Metrics) -> Self {
        let nodes = Gauge::default();
        metrics.register(|all| all.register("runner_nodes", "Built-in nodes that are run", nodes.clone()));
        Self {
            broker,
            namespace,
            pod,
            pool: Pool::new(None),
            web,
            metrics: PumpMetrics::new(metrics),
            nodes,
            running: HashMap::new(),
        }
    }

    /// Does what was read of one flow, if it is new.
    pub fn hear(&mut self, news: News) {
        let News { flow, sequence, work } = news;
        if self.running.get(&flow).is_some_and(|running| running.sequence >= sequence) {
            return;
        }
        let mut running = self.running.remove(&flow).unwrap_or_else(|| Running {
            sequence,
            work: None,
            nodes: BTreeMap::new(),
            problems: Vec::new(),
            leaving: Vec::new(),
            lane: self.pool.lane(),
            answer: None,
        });
        running.sequence = sequence;
        Self::stop_changed(&mut running, work.as_ref());
        running.work = work;
        self.start_missing(&flow, &mut running);
        self.answer(&flow, &mut running);
        self.running.insert(flow, running);
        self.count();
    }

    /// The same for what was read of it with all keys. Where nothing was heard of the flow since the reading began, what was
    /// read is the newer, whatever its place in the bucket: a bucket that was made anew counts from the beginning.
    pub fn hear_read(&mut self, news: News, known: &HashMap<FlowName, u64>) {
        if let Some(running) = self.running.get_mut(&news.flow)
            && known.get(&news.flow) == Some(&running.sequence)
            && news.sequence < running.sequence
        {
            running.sequence = 0;
        }
        self.hear(news);
    }

    /// What is known at the moment: to be given to [`Flows::only`].
    #[must_use]
    pub fn known(&self) -> HashMap<FlowName, u64> {
        self.running.iter().map(|(flow, running)| (flow.clone(), running.sequence)).collect()
    }

    /// All keys were read, and there are no others than these. What was not `known` when the reading began, or was heard
    /// of since, may have come too late for it.
    pub fn only(&mut self, keys: &HashSet<FlowName>, known: HashMap<FlowName, u64>) {
        for (flow, sequence) in known.into_iter().filter(|(flow, _)| !keys.contains(flow)) {
            let Some(mut running) = self.running.remove(&flow) else { continue };
            if running.sequence > sequence {
                self.running.insert(flow, running);
                continue;
            }
            tracing::info!(%flow, "Stopping a flow of which the operator says nothing any more");
            Self::stop_changed(&mut running, None);
            running.answer.inspect(AbortHandle::abort);
        }
        self.count();
    }

    /// Says again what is loaded: nobody knows whether what was said is still known.
    pub fn repeat(&mut self) {
        for (flow, mut running) in std::mem::take(&mut self.running) {
            self.answer(&flow, &mut running);
            self.running.insert(flow, running);
        }
    }

    /// Finishes what is in flight, for as long as there is time; the rest is given back.
    pub async fn finish(self, limit: Duration) {
        let running = self.running.into_values();
        let pumps: Vec<_> = running
            .flat_map(|running| {
                running.answer.inspect(AbortHandle::abort);
                running.nodes.into_values().map(|(_, pump)| pump).chain(running.leaving)
            })
            .collect();
        if timeout(limit, join_all(pumps.iter().map(|pump| pump.drain()))).await.is_err() {
            tracing::warn!("Giving back what could not be finished");
            join_all(pumps.iter().map(|pump| pump.leave())).await;
        }
    }

    /// Stops the nodes that are no longer to be run as they are.
    fn stop_changed(running: &mut Running, work: Option<&FlowWork>) {
        let same_flow = running.work.as_ref().map(|work| &work.uid) == work.map(|work| &work.uid);
        let stays = |node: &NodeWork| same_flow && work.is_some_and(|work| work.nodes.contains(node));
        running.leaving.retain(|pump| !pump.has_ended());
        let (stay, leave): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut running.nodes).into_iter().partition(|(_, (node, _))| stays(node));
        running.nodes = stay;
        for (_, pump) in leave.into_values() {
            running.leaving.push(Arc::clone(&pump));
            tokio::spawn(async move {
                if timeout(FINISH, pump.drain()).await.is_err() {
                    pump.leave().await;
                }
            });
        }
    }

    /// Starts the nodes that are not run yet.
    fn start_missing(&self, flow: &FlowName, running: &mut Running) {
        running.problems.clear();
        for node in running.work.iter().flat_map(|work| &work.nodes) {
            if running.nodes.contains_key(&node.id) {
                continue;
            }
            match self.start(flow, node, &running.lane) {
                Ok(pump) => drop(running.nodes.insert(node.id.clone(), (node.clone(), Arc::new(pump)))),
                Err(problem) => {
                    tracing::error!(%flow, node = %node.id, problem, "Cannot run a node");
                    running.problems.push(format!("node '{}': {problem}", node.id));
                }
            }
        }
    }

    fn start(&self, flow: &FlowName, node: &NodeWork, lane: &Arc<Lane>) -> Result<Pump, String> {
        let Handler::Builtin { name, fields } = &node.handler else {
            return Err("it has an image, and a runner runs none".into());
        };
        let place = Place { namespace: self.namespace.clone(), flow: flow.clone(), node: node.id.clone() };
        let tools = Tools { lane: Arc::clone(lane), web: self.web.clone() };
        let handler = builtin::load(&place, name, fields, node.timeout(), tools)
            .map_err(|wrong| format!("`{}` {}", wrong.field, wrong.message))?;
        let edges = Arc::new(Edges::load(node, Some(Arc::clone(lane)))?);
        Ok(Pump::start(self.broker.clone(), place, node.clone(), (handler, edges), self.metrics.clone()))
    }

    /// Says what is loaded, as soon as it is: when every consumer has answered and nothing else runs any more.
    fn answer(&self, flow: &FlowName, running: &mut Running) {
        running.answer.take().inspect(AbortHandle::abort);
        let leaving = running.leaving.clone();
        let answers: Vec<_> = running.nodes.values().map(|(_, pump)| pump.answers()).collect();
        let loaded = running.work.as_ref().map(|work| Loaded {
            uid: work.uid.clone(),
            revision: work.revision.clone(),
            pod: self.pod.clone(),
            problems: running.problems.clone(),
        });
        let key = format!("$KV.{}.{}", subject::OBSERVED, subject::flow_key(&self.namespace, flow));
        let (broker, flow) = (self.broker.clone(), flow.clone());
        let task = tokio::spawn(async move {
            join_all(leaving.iter().map(|pump| pump.drain())).await;
            for mut answers in answers {
                // The other side is there for as long as the pump is.
                let _ = answers.wait_for(|answers| *answers).await;
            }
            put(&broker, &key, loaded.as_ref()).await;
            let revision = loaded.map(|loaded| loaded.revision).unwrap_or_default();
            tracing::info!(%flow, revision, "Said which nodes of a flow are run");
        });
        running.answer = Some(task.abort_handle());
    }

    fn count(&self) {
        let nodes = self.running.values().map(|running| running.nodes.len()).sum::<usize>();
        self.nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
    }
}

/// Writes a key, or deletes it, until it is stored.
async fn put(broker: &Broker, key: &str, loaded: Option<&Loaded>) {
    let mut headers = HeaderMap::new();
    // A struct of texts can always be written.
    let payload = loaded.map(|loaded| serde_json::to_vec(loaded).unwrap_or_default()).unwrap_or_default();
    if loaded.is_none() {
        headers.insert("KV-Operation", "DEL");
    }
    let payload = Bytes::from(payload);
    for times in 0.. {
        match broker.publish(key.to_owned(), headers.clone(), payload.clone()).await {
            Ok(_) => return,
            Err(error) if times == 0 => tracing::warn!(%error, key, "Cannot say yet what is loaded"),
            Err(_) => {}
        }
        sleep(step::hold(times).mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        broker.wait_connected().await;
    }
}
