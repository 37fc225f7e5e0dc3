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
    let mut drawing = Drawing { id, all_bytes: root.bytes, steps: 0, out };
    for (owner, component) in root.children.iter().zip(&owners) {
        drawing.write_step(owner, root.bytes, *component, 0)?;
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

/// A tree that is being written.
struct Drawing<'a> {
    /// What the ids in it begin with.
    id: &'a str,
    all_bytes: u64,
    /// Steps written so far.
    steps: usize,
    out: &'a mut dyn Write,
}

impl Drawing<'_> {
    /// A step and those below it. Its name is that of an element of its own: what a screen reader says begins with what
    /// is seen.
    fn write_step(
        &mut self,
        node: &Node,
        above_bytes: u64,
        owner: Option<Component>,
        depth: usize,
    ) -> io::Result<()> {
        let all_bytes = self.all_bytes;
        let label = format!("{}, {}, {}", node.name, size(node.bytes), share(node.bytes, all_bytes));
        let label = Text(&label);
        let focus = if self.steps == 0 { 0 } else { -1 };
        let group = format!("{}-{}", self.id, self.steps);
        self.steps += 1;
        let below = node.children.iter().filter(|child| child.bytes >= (all_bytes / PARTS_MAX).max(1));
        let mut below: Vec<&Node> = below.collect();
        below.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.name.cmp(&other.name)));
        let owns = match below.is_empty() {
            true => String::new(),
            false => format!(" aria-expanded=\"true\" aria-owns=\"{group}\""),
        };
        let hue = hue(owner) + depth % 3 * 7;
        write!(
            self.out,
            "<li role=\"none\" style=\"--w:{:.3}%\"><span role=\"treeitem\" tabindex=\"{focus}\" \
             aria-label=\"{label}\"{owns} style=\"--h:{hue}\" title=\"{label}\">{}</span>",
            percent(node.bytes, above_bytes),
            Text(&node.name),
        )?;
        if below.is_empty() {
            return writeln!(self.out, "</li>");
        }
        writeln!(self.out, "<ul role=\"group\" id=\"{group}\">")?;
        for step in below {
            self.write_step(step, node.bytes, owner, depth + 1)?;
        }
        writeln!(self.out, "</ul></li>")
    }
}
