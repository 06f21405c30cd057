//! A plan as tree, table, dot or mermaid.

use std::fmt::Write as _;

use super::table::columns;
use crate::engine::event::Verb;
use crate::engine::plan::{Plan, PlannedStep};
use crate::row;
use crate::steps::Action;

/// How a plan is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PlanFormat {
    /// Steps below the steps they wait for.
    #[default]
    Tree,
    /// One step a line.
    Table,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
    /// For Markdown that draws.
    Mermaid,
}

/// Draws a plan.
pub fn draw(plan: &Plan, format: PlanFormat) -> String {
    match format {
        PlanFormat::Tree => tree(plan),
        PlanFormat::Table => table(plan),
        PlanFormat::Json => serde_json::to_string_pretty(plan).unwrap_or_default(),
        PlanFormat::Dot => dot(plan),
        PlanFormat::Mermaid => mermaid(plan),
    }
}

fn verb(plan: &Plan) -> &'static str {
    match plan.verb {
        Verb::Up => "up",
        Verb::Down => "down",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Keep => "keep",
        Action::Create => "create",
        Action::Change => "change",
        Action::Run => "run",
        Action::Remove => "remove",
    }
}

fn heading(plan: &Plan) -> String {
    format!(
        "{} {} on {}, namespace {}",
        verb(plan),
        plan.scenario,
        plan.cluster,
        plan.namespace
    )
}

fn tree(plan: &Plan) -> String {
    let mut text = heading(plan);
    // A step stands below the last of its needs, where the eye comes from.
    let parent = |step: &PlannedStep| {
        let needs = step
            .needs
            .iter()
            .filter_map(|need| plan.steps.iter().position(|other| other.id == *need));
        needs.max()
    };
    fn grow(
        plan: &Plan,
        parent: &dyn Fn(&PlannedStep) -> Option<usize>,
        below: Option<usize>,
        indent: &str,
        text: &mut String,
    ) {
        let children: Vec<usize> = (0..plan.steps.len())
            .filter(|step| parent(&plan.steps[*step]) == below)
            .collect();
        for (nth, step) in children.iter().enumerate() {
            let last = nth + 1 == children.len();
            let (branch, trunk) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let planned = &plan.steps[*step];
            let intent = &planned.intent;
            let _ = write!(
                text,
                "\n{indent}{branch}{}: {} ({})",
                planned.id,
                action(intent.action),
                intent.why
            );
            for detail in &intent.details {
                let _ = write!(text, "\n{indent}{trunk}   {detail}");
            }
            grow(plan, parent, Some(*step), &format!("{indent}{trunk}"), text);
        }
    }
    grow(plan, &parent, None, "", &mut text);
    text
}

fn table(plan: &Plan) -> String {
    let mut rows = vec![row!["STEP", "KIND", "NEEDS", "ACTION", "WHY"]];
    for step in &plan.steps {
        let needs: Vec<&str> = step.needs.iter().map(|need| need.as_str()).collect();
        rows.push(row![
            step.id,
            step.kind,
            needs.join(","),
            action(step.intent.action),
            step.intent.why
        ]);
    }
    columns("", &rows)
}

fn dot(plan: &Plan) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n", plan.scenario);
    for step in &plan.steps {
        let _ = writeln!(
            text,
            "  \"{}\" [label=\"{}\\n{}\"];",
            step.id,
            step.id,
            action(step.intent.action)
        );
        for need in &step.needs {
            let _ = writeln!(text, "  \"{need}\" -> \"{}\";", step.id);
        }
    }
    text + "}"
}

fn mermaid(plan: &Plan) -> String {
    let mut text = "flowchart LR".to_owned();
    for step in &plan.steps {
        let _ = write!(text, "\n  {}[\"{}: {}\"]", step.id, step.id, action(step.intent.action));
        for need in &step.needs {
            let _ = write!(text, "\n  {need} --> {}", step.id);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::StepId;
    use crate::steps::Intent;

    fn plan() -> Plan {
        let step = |id: &str, needs: &[&str], action, why: &str, details: &[&str]| PlannedStep {
            id: StepId::new(id),
            kind: "apply".into(),
            needs: needs.iter().map(|need| StepId::new(need)).collect(),
            intent: Intent {
                action,
                why: why.into(),
                details: details.iter().map(|line| (*line).to_owned()).collect(),
            },
        };
        Plan {
            verb: Verb::Up,
            scenario: "cpu-hpa".into(),
            cluster: "embedded".into(),
            namespace: "cpu-hpa".into(),
            steps: vec![
                step("cluster", &[], Action::Keep, "embedded", &[]),
                step("metrics", &["cluster"], Action::Keep, "resource metrics", &[]),
                step("image", &["cluster"], Action::Create, "missing", &[]),
                step(
                    "burner",
                    &["image"],
                    Action::Change,
                    "1 difference",
                    &["spec.replicas: 1 → 3"],
                ),
                step("hpa", &["burner", "metrics"], Action::Create, "missing", &[]),
            ],
        }
    }

    #[test]
    fn a_plan_is_drawn_in_each_form() {
        let forms = [
            PlanFormat::Tree,
            PlanFormat::Table,
            PlanFormat::Dot,
            PlanFormat::Mermaid,
        ];
        insta::assert_snapshot!(forms.map(|form| draw(&plan(), form)).join("\n\n"));
    }
}
