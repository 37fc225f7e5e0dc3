//! What the samples of a profile refer to, each listed once: strings, files, functions, places in the code.
//!
//! The surprise: calls that were inlined share their caller's location, as lines of it.

use std::collections::HashMap;
use std::hash::Hash;

use super::proto::{Function, Label, Line, Location, Mapping, Sample};
use crate::report::Frame;
use crate::report::escape::printable;
use crate::report::stacks::{self, Step};

/// The tables of one profile.
pub struct Tables {
    strings: Numbered<String>,
    /// By the path's string.
    files: Numbered<i64>,
    /// Name and source file, as strings.
    functions: Numbered<(i64, i64)>,
    places: Numbered<Place>,
    component_key: i64,
}

/// What makes two locations one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    mapping_id: u64,
    address: u64,
    /// Function ids and lines, innermost first.
    lines: Vec<(u64, i64)>,
}

impl Tables {
    /// With the empty string, which must be the first.
    pub fn new() -> Self {
        let mut strings = Numbered::new();
        strings.place(String::new());
        let component_key = strings.place("component".to_owned());
        Self {
            strings,
            files: Numbered::new(),
            functions: Numbered::new(),
            places: Numbered::new(),
            component_key,
        }
    }

    /// The place of a string.
    pub fn text(&mut self, text: &str) -> i64 {
        self.strings.place(text.to_owned())
    }

    /// The id of a mapped file.
    pub fn mapping(&mut self, path: &str) -> u64 {
        let path = self.text(&printable(path));
        self.files.id(path)
    }

    /// The sample with its values in the order of the profile's sample types.
    pub fn sample(&mut self, sample: &stacks::Sample<'_>, has_growth: bool) -> Sample {
        let mut location_ids = Vec::new();
        let mut inlined: Vec<&Frame> = Vec::new();
        for step in &sample.steps {
            match step {
                Step::Code(frame) if frame.inlined => inlined.push(frame),
                Step::Code(frame) => {
                    location_ids.push(self.code(&inlined, frame));
                    inlined.clear();
                }
                Step::Word(_) => {
                    self.end_inlined(&mut inlined, &mut location_ids);
                    location_ids.push(self.word(&step.name()));
                }
            }
        }
        self.end_inlined(&mut inlined, &mut location_ids);
        location_ids.push(self.word(sample.owner()));
        let mut values = vec![value(sample.objects), value(sample.held_bytes)];
        values.extend(has_growth.then_some(value(sample.growth_bytes)));
        let label = Label { key: self.component_key, text: self.text(sample.owner()) };
        Sample { location_ids, values, labels: vec![label] }
    }

    /// Where a stack was cut within a function, the outermost that is left of it stands for it.
    fn end_inlined(&mut self, inlined: &mut Vec<&Frame>, location_ids: &mut Vec<u64>) {
        if let Some(outermost) = inlined.pop() {
            location_ids.push(self.code(inlined, outermost));
            inlined.clear();
        }
    }

    fn code(&mut self, inlined: &[&Frame], frame: &Frame) -> u64 {
        let frames = inlined.iter().copied().chain([frame]);
        let named = frames.filter(|frame| frame.function.is_some());
        let lines = named.map(|frame| (self.function(frame), i64::from(frame.line.unwrap_or(0)))).collect();
        let mapping_id = frame.module.as_deref().map_or(0, |path| self.mapping(path));
        self.places.id(Place { mapping_id, address: frame.address, lines })
    }

    fn word(&mut self, word: &str) -> u64 {
        let name = self.text(word);
        let function_id = self.functions.id((name, 0));
        self.places.id(Place { mapping_id: 0, address: 0, lines: vec![(function_id, 0)] })
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let name = self.text(&stacks::name(frame));
        let file = frame.file.as_deref().map_or(0, |file| self.text(&printable(file)));
        self.functions.id((name, file))
    }

    /// As messages: files.
    pub fn mappings(&self) -> Vec<Mapping> {
        let mapping = |(id, filename): (u64, &i64)| Mapping {
            id,
            filename: *filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        };
        self.files.with_ids().map(mapping).collect()
    }

    /// As messages: functions.
    pub fn functions(&self) -> Vec<Function> {
        let function = |(id, (name, filename)): (u64, &(i64, i64))| Function {
            id,
            name: *name,
            system_name: *name,
            filename: *filename,
        };
        self.functions.with_ids().map(function).collect()
    }

    /// As messages: places.
    pub fn locations(&self) -> Vec<Location> {
        let line = |(function_id, line): &(u64, i64)| Line { function_id: *function_id, line: *line };
        let location = |(id, place): (u64, &Place)| Location {
            id,
            mapping_id: place.mapping_id,
            address: place.address,
            lines: place.lines.iter().map(line).collect(),
        };
        self.places.with_ids().map(location).collect()
    }

    /// The strings.
    pub fn strings(self) -> Vec<String> {
        self.strings.listed
    }
}

/// Values by their place in a list.
struct Numbered<T> {
    listed: Vec<T>,
    places: HashMap<T, u64>,
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn new() -> Self {
        Self { listed: Vec::new(), places: HashMap::new() }
    }

    /// From 1 on.
    fn id(&mut self, value: T) -> u64 {
        let next = self.listed.len() as u64 + 1;
        *self.places.entry(value).or_insert_with_key(|value| {
            self.listed.push(value.clone());
            next
        })
    }

    /// From 0 on.
    fn place(&mut self, value: T) -> i64 {
        self.id(value).cast_signed() - 1
    }

    fn with_ids(&self) -> impl Iterator<Item = (u64, &T)> {
        (1..).zip(&self.listed)
    }
}

fn value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
