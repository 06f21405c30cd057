//! Who waits for whom.
//!
//! Owns the order and nothing else. Steps are numbers in file order, so that equal input gives an equal order. Pure.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::scenario::StepId;

/// Steps and their needs, without a ring.
#[derive(Clone, Debug)]
pub struct Graph {
    /// An edge leads from a step to each step that waits for it.
    edges: DiGraph<StepId, ()>,
}

/// Why these steps are no graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A need that is no step.
    #[error("step `{step}` needs `{need}`, which is no step")]
    Unknown {
        /// Who needs.
        step: StepId,
        /// What is not there.
        need: StepId,
    },
    /// Steps that wait for each other.
    #[error("steps wait for each other in a ring: {}", ring.iter().map(StepId::as_str).collect::<Vec<_>>().join(", "))]
    Ring {
        /// Every step on the ring, in file order.
        ring: Vec<StepId>,
    },
}

impl Graph {
    /// Joins steps by their needs.
    pub fn new(steps: &[(StepId, Vec<StepId>)]) -> Result<Self, GraphError> {
        let mut edges = DiGraph::with_capacity(steps.len(), steps.len());
        for (id, _) in steps {
            edges.add_node(id.clone());
        }
        for (index, (id, needs)) in steps.iter().enumerate() {
            for need in needs {
                let found = steps.iter().position(|(other, _)| other == need);
                let found = found.ok_or_else(|| GraphError::Unknown {
                    step: id.clone(),
                    need: need.clone(),
                })?;
                edges.update_edge(NodeIndex::new(found), NodeIndex::new(index), ());
            }
        }
        let graph = Self { edges };
        let ring = petgraph::algo::tarjan_scc(&graph.edges)
            .into_iter()
            .find(|part| part.len() > 1 || graph.edges.contains_edge(part[0], part[0]));
        match ring {
            None => Ok(graph),
            Some(mut ring) => {
                ring.sort();
                Err(GraphError::Ring {
                    ring: ring.into_iter().map(|node| graph.edges[node].clone()).collect(),
                })
            }
        }
    }

    /// The same steps with every arrow turned round: the order of `down`.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.edges.reverse();
        self
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.edges.node_count()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of a step.
    pub fn id(&self, step: usize) -> &StepId {
        &self.edges[NodeIndex::new(step)]
    }

    /// The steps that `step` waits for, in file order.
    pub fn needs(&self, step: usize) -> BTreeSet<usize> {
        self.neighbours(step, Direction::Incoming)
    }

    /// The steps that wait for `step`, in file order.
    pub fn dependents(&self, step: usize) -> BTreeSet<usize> {
        self.neighbours(step, Direction::Outgoing)
    }

    fn neighbours(&self, step: usize, direction: Direction) -> BTreeSet<usize> {
        self.edges
            .neighbors_directed(NodeIndex::new(step), direction)
            .map(NodeIndex::index)
            .collect()
    }

    /// All steps, each after its needs; among those that could be next the first in the file is.
    pub fn order(&self) -> Vec<usize> {
        let mut waits: Vec<usize> = (0..self.len()).map(|step| self.needs(step).len()).collect();
        let mut ready: BTreeSet<usize> = (0..self.len()).filter(|step| waits[*step] == 0).collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(next) = ready.pop_first() {
            order.push(next);
            for dependent in self.dependents(next) {
                waits[dependent] -= 1;
                if waits[dependent] == 0 {
                    ready.insert(dependent);
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(list: &[(&str, &[&str])]) -> Vec<(StepId, Vec<StepId>)> {
        list.iter()
            .map(|(id, needs)| (StepId::new(id), needs.iter().map(|need| StepId::new(need)).collect()))
            .collect()
    }

    #[test]
    fn the_order_is_the_files_where_needs_allow_it() {
        let graph = Graph::new(&steps(&[
            ("hpa", &["burner", "metrics"]),
            ("metrics", &[]),
            ("image", &[]),
            ("burner", &["image"]),
        ]));
        let graph = graph.unwrap();
        assert_eq!(graph.order(), [1, 2, 3, 0]);
        assert_eq!(graph.reversed().order(), [0, 1, 3, 2]);
    }

    #[test]
    fn a_ring_names_its_steps_and_a_wrong_need_is_named() {
        let ring = Graph::new(&steps(&[("a", &["c"]), ("b", &["a"]), ("c", &["b"]), ("d", &[])])).unwrap_err();
        assert_eq!(ring.to_string(), "steps wait for each other in a ring: a, b, c");
        let own = Graph::new(&steps(&[("a", &["a"])])).unwrap_err();
        assert_eq!(
            own,
            GraphError::Ring {
                ring: vec![StepId::new("a")]
            }
        );
        let unknown = Graph::new(&steps(&[("a", &["z"])])).unwrap_err();
        assert_eq!(unknown.to_string(), "step `a` needs `z`, which is no step");
    }
}
