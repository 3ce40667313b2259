//! Promise: an error does not print its own source. `describe_error` says each reason once, from the chain of sources.

use std::path::Path;

use crate::layers::sources;

/// An attribute of an error whose text has the error's own source, with the line that it begins at.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    line: usize,
    field: String,
}

/// The attributes in a source text that print a source.
fn printed_sources(text: &str) -> Vec<Printed> {
    let starts = text.match_indices("#[error").map(|(start, _)| start);
    let attributes = starts.filter_map(|start| {
        let (attribute, rest) = split_at_end(&text[start + "#[".len()..])?;
        let line = text[..start].matches('\n').count() + 1;
        let sources = sources_of(rest);
        let field = sources.into_iter().find(|field| prints(attribute, field))?;
        Some(Printed { line, field })
    });
    attributes.collect()
}

/// The text up to the bracket that closes what is open at its begin, and the text after that bracket. Brackets in strings and
/// comments do not count.
fn split_at_end(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut rest) = (0, text);
    while let Some(c) = rest.chars().next() {
        let at = text.len() - rest.len();
        rest = match c {
            ')' | ']' | '}' if depth == 0 => return Some((&text[..at], &rest[1..])),
            ')' | ']' | '}' => {
                depth -= 1;
                &rest[1..]
            }
            '(' | '[' | '{' => {
                depth += 1;
                &rest[1..]
            }
            '"' => &rest[string_length(rest)..],
            '/' if rest.starts_with("//") => &rest[rest.find('\n').unwrap_or(rest.len())..],
            _ => &rest[c.len_utf8()..],
        };
    }
    None
}

/// The length of the string that the text begins with, with its quotes.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// The fields of the variant or the struct in front of the text that are its source: each marked field, and one that is called
/// `source`.
fn sources_of(text: &str) -> Vec<String> {
    let Some(item) = after_attributes(text) else { return Vec::new() };
    let item = item.strip_prefix("pub(").and_then(|item| Some(split_at_end(item)?.1)).unwrap_or(item);
    let end = item.find(['(', '{', ',', ';', '}']).unwrap_or(item.len());
    let is_named = match item.as_bytes().get(end) {
        Some(b'(') => false,
        Some(b'{') => true,
        _ => return Vec::new(),
    };
    let Some((body, _)) = split_at_end(&item[end + 1..]) else { return Vec::new() };
    let numbered = fields(body).into_iter().enumerate();
    let named = numbered.filter_map(|(number, field)| {
        let is_marked = field.contains("#[source]") || field.contains("#[from]");
        let name = if is_named {
            let declared = after_attributes(field)?.split(':').next()?.trim();
            declared.rsplit(' ').next()?.to_owned()
        } else {
            number.to_string()
        };
        (is_marked || name == "source").then_some(name)
    });
    named.collect()
}

/// The text behind the white space, the comments and the attributes at its begin.
fn after_attributes(text: &str) -> Option<&str> {
    let text = text.trim_start();
    if text.starts_with("//") {
        after_attributes(&text[text.find('\n')?..])
    } else if let Some(attribute) = text.strip_prefix("#[") {
        after_attributes(split_at_end(attribute)?.1)
    } else {
        Some(text)
    }
}

/// The fields between the brackets of a variant or a struct.
fn fields(body: &str) -> Vec<&str> {
    let (mut fields, mut rest) = (Vec::new(), body);
    while !rest.trim().is_empty() {
        let end = end_of_field(rest);
        fields.push(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    fields
}

/// Where the first comma stands that is outside of brackets and comments.
fn end_of_field(text: &str) -> usize {
    let (mut depth, mut is_comment) = (0, false);
    for (at, c) in text.char_indices() {
        is_comment = (is_comment || text[at..].starts_with("//")) && c != '\n';
        match c {
            _ if is_comment => {}
            ',' if depth == 0 => return at,
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether an attribute names a field: between braces in its text, or in an argument of its text.
fn prints(attribute: &str, field: &str) -> bool {
    let in_text = ["}", ":"].iter().any(|end| attribute.contains(&format!("{{{field}{end}")));
    let is_number = field.starts_with(|c: char| c.is_ascii_digit());
    let is_field =
        |word: &str| if is_number { word == format!(".{field}") } else { word.trim_start_matches('.') == field };
    in_text || words_outside_strings(attribute).iter().any(|word| is_field(word))
}

/// The words outside of the strings, each with the dots in front of it. A word behind a path's or a field's dot is no field of
/// the error itself.
fn words_outside_strings(attribute: &str) -> Vec<String> {
    let (mut code, mut rest) = (String::new(), attribute);
    while let Some(quote) = rest.find('"') {
        code.push_str(&rest[..quote]);
        code.push(' ');
        rest = &rest[quote + string_length(&rest[quote..])..];
    }
    code.push_str(rest);
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
    let first_of = |word: &str| {
        let dots = word.len() - word.trim_start_matches('.').len();
        let end = word[dots..].find('.').map_or(word.len(), |at| dots + at);
        word[..end].to_owned()
    };
    words.map(first_of).filter(|word| !word.is_empty()).collect()
}

#[test]
fn no_error_prints_its_own_source() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&src) {
        let relative = file.strip_prefix(&src).unwrap().display();
        let printed = printed_sources(&std::fs::read_to_string(&file).unwrap());
        wrong.extend(printed.iter().map(|Printed { line, field }| format!("src/{relative}:{line} prints `{field}`")));
    }
    assert!(wrong.is_empty(), "the text of an error has its own source in it:\n{}", wrong.join("\n"));
}

#[test]
fn the_scanner_sees_every_way_to_print_a_source() {
    let found = |text: &str| printed_sources(text).into_iter().map(|p| (p.line, p.field)).collect::<Vec<_>>();
    let one = |line: usize, field: &str| vec![(line, field.to_owned())];

    assert_eq!(found("enum E {\n    #[error(\"a: {0}\")]\n    A(#[from] B),\n}"), one(2, "0"));
    assert_eq!(found("#[error(\"a: {1:?}\")]\nA(Map<B, C>, #[source] D),"), one(1, "1"));
    assert_eq!(
        found("#[error(\n    \"a: {source}\"\n)]\n/// Doc, with {.\nA {\n    /// B, C.\n    source: D,\n}"),
        one(1, "source")
    );
    assert_eq!(found("#[error(\"a {why}\")]\nA { b: u8, #[source] why: C }"), one(1, "why"));
    assert_eq!(found("#[error(\"a {}\", .0.first())]\nA(#[from] B)"), one(1, "0"));
    assert_eq!(found("#[error(\"a {}\", source.first())]\nA { source: B }"), one(1, "source"));
    assert_eq!(found("#[error(\"a {why}\", why = .0)]\nA(#[source] B)"), one(1, "0"));
    assert_eq!(
        found("#[error(\"{by}: {source}\")]\npub struct E {\n    pub by: A,\n    pub source: B,\n}"),
        one(1, "source")
    );
    assert_eq!(found("#[error(\"a {0}\")]\npub(super) struct E(#[from] A);"), one(1, "0"));

    assert_eq!(found("#[error(\"a {0}\")]\nA(String),"), []);
    assert_eq!(found("#[error(\"a {}\", 0)]\nA(#[from] B),"), []);
    assert_eq!(found("#[error(\"a {0}\")]\nA(String, #[source] B),"), []);
    assert_eq!(found("#[error(transparent)]\nA(#[from] B),"), []);
    assert_eq!(found("#[error(\"the source {} \\\" (]\", path.source)]\nA { path: P, source: B }"), []);
    assert_eq!(found("#[error(\"a {source}\")]\nB,\n#[error(\"b\")]\nA { source: B }"), []);
}
