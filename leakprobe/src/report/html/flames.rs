//! A flame graph as a tree of nested lists: each step is as wide as its share of the one above it.

use std::collections::HashMap;
use std::io::{self, Write};

use super::ledger::hue;
use super::markup::{Text, percent};
use crate::claim::Component;
use crate::report::Report;
use crate::report::stacks::{Measure, samples};
use crate::report::text::units::{share, size};

/// Narrower steps, in parts of the whole, are drawn together.
const PARTS_MAX: u64 = 500;
/// Deeper ones are left out: a page has no room for them, and browsers nest no further than some hundreds.
const DEPTH_MAX: usize = 80;

/// A step and those below it.
#[derive(Default)]
struct Node {
    name: String,
    bytes: u64,
    children: Vec<Node>,
    /// Places of the children by name.
    places: HashMap<String, usize>,
}

impl Node {
    fn child(&mut self, name: String) -> &mut Self {
        let next = self.children.len();
        let place = *self.places.entry(name).or_insert_with_key(|name| {
            self.children.push(Self { name: name.clone(), ..Self::default() });
            next
        });
        &mut self.children[place]
    }
}

/// Writes the section, where there is anything to draw.
pub fn write(report: &Report, measure: Measure, out: &mut dyn Write) -> io::Result<()> {
    let (root, owners) = tree(report, measure);
    // A graph one step high says no more than the table of owners.
    if root.children.iter().all(|owner| owner.children.is_empty()) {
        return Ok(());
    }
    let (id, title) = match measure {
        Measure::Growth => ("flames-growth", "What grew, as a flame graph"),
        Measure::Held => ("flames-held", "What is held, as a flame graph"),
    };
    writeln!(out, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>")?;
    writeln!(
        out,
        "<p class=\"quiet\">{} in all. Wider is more; callers are above what they call. \
         <span class=\"hint\">Click or Enter widens a step, Escape goes back, arrows move.</span></p>",
        Text(&size(root.bytes))
    )?;
    writeln!(out, "<ul class=\"flame\" role=\"tree\" aria-labelledby=\"{id}\">")?;
    let is_first = &mut true;
    for (owner, component) in root.children.iter().zip(&owners) {
        write_node(owner, root.bytes, root.bytes, *component, 0, is_first, out)?;
    }
    writeln!(out, "</ul>\n</section>")
}

/// The tree, its first steps being owners, and who these are.
fn tree(report: &Report, measure: Measure) -> (Node, Vec<Option<Component>>) {
    let mut root = Node::default();
    let mut owners = Vec::new();
    for sample in samples(report).iter().filter(|sample| sample.bytes(measure) > 0) {
        let bytes = sample.bytes(measure);
        root.bytes = root.bytes.saturating_add(bytes);
        let mut node = root.child(sample.component.map_or("In no row", Component::label).to_owned());
        node.bytes = node.bytes.saturating_add(bytes);
        for step in sample.steps.iter().rev().take(DEPTH_MAX) {
            node = node.child(step.name());
            node.bytes = node.bytes.saturating_add(bytes);
        }
        if owners.len() < root.children.len() {
            owners.push(sample.component);
        }
    }
    (root, owners)
}

fn write_node(
    node: &Node,
    above_bytes: u64,
    all_bytes: u64,
    owner: Option<Component>,
    depth: usize,
    is_first: &mut bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let label = format!("{}, {}, {}", node.name, size(node.bytes), share(node.bytes, all_bytes));
    let label = Text(&label);
    let focus = if std::mem::take(is_first) { 0 } else { -1 };
    write!(
        out,
        "<li role=\"treeitem\" tabindex=\"{focus}\" aria-label=\"{label}\" style=\"--w:{:.3}%\"",
        percent(node.bytes, above_bytes),
    )?;
    let steps = node.children.iter().filter(|child| child.bytes >= (all_bytes / PARTS_MAX).max(1));
    let mut steps: Vec<&Node> = steps.collect();
    steps.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.name.cmp(&other.name)));
    let expanded = if steps.is_empty() { "" } else { " aria-expanded=\"true\"" };
    let hue = hue(owner) + depth % 3 * 7;
    write!(out, "{expanded}><span style=\"--h:{hue}\" title=\"{label}\">{}</span>", Text(&node.name))?;
    if steps.is_empty() {
        return writeln!(out, "</li>");
    }
    writeln!(out, "<ul role=\"group\">")?;
    for step in steps {
        write_node(step, node.bytes, all_bytes, owner, depth + 1, is_first, out)?;
    }
    writeln!(out, "</ul></li>")
}
