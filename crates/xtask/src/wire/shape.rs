//! The forms that types have on the wire, worked out from their declarations.

use std::collections::HashSet;

use syn::{Fields, GenericArgument, PathArguments, Type as RustType};

use super::docs::Docs;
use super::source::{Body, Declared, Serde, Sources, number, pascal};

/// A type with its name on the wire.
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) docs: Docs,
    pub(crate) form: Form,
}

pub(crate) enum Form {
    Object(Object),
    /// One of several texts, each with what it means.
    Choice(Vec<(String, Docs)>),
    Union(Vec<Shape>),
    Alias(Shape),
    /// Its doc comment has the form.
    Opaque,
}

#[derive(Default)]
pub(crate) struct Object {
    /// Objects whose fields it has too, by their names on the wire; all optional if so.
    pub(crate) bases: Vec<(String, bool)>,
    pub(crate) fields: Vec<Field>,
}

#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) docs: Docs,
    pub(crate) shape: Shape,
    pub(crate) optional: bool,
}

impl Field {
    /// The field that tells the members of a union apart.
    pub(crate) fn tag(name: &str, value: &str) -> Field {
        let docs = Docs { text: vec!["Which kind it is.".into()], ..Docs::default() };
        Field { name: name.into(), docs, shape: Shape::Constant(value.into()), optional: false }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Text,
    Flag,
    Number,
    /// A whole number of a range.
    Whole(Option<u64>, Option<u64>),
    Unknown,
    Constant(String),
    List(Box<Shape>),
    /// So many of them.
    Several(Box<Shape>, usize),
    Map(Box<Shape>),
    Nullable(Box<Shape>),
    /// A type of this name on the wire.
    Named(String),
}

/// The types that can be reached from the roots, each behind those that lead to it.
pub(crate) struct Types<'a> {
    sources: &'a Sources,
    seen: HashSet<String>,
    pub(crate) list: Vec<Type>,
}

impl<'a> Types<'a> {
    pub(crate) fn new(sources: &'a Sources) -> Self {
        Types { sources, seen: HashSet::new(), list: Vec::new() }
    }

    /// Adds a type of the sources, and those that it is made of; gives its name on the wire.
    pub(crate) fn add(&mut self, rust: &str) -> Result<String, String> {
        let declared = self.sources.find(rust)?.clone();
        let (docs, serde) = (declared.docs.clone()?, declared.serde.clone()?);
        let name = serde.rename.clone().unwrap_or_else(|| declared.name.clone());
        if !self.seen.insert(name.clone()) {
            return Ok(name);
        }
        let place = self.list.len();
        let form = match docs.schema.is_some() {
            true => Form::Opaque,
            false => self.form(&declared, &serde).map_err(|reason| format!("{rust}: {reason}"))?,
        };
        self.list.insert(place, Type { name: name.clone(), docs, form });
        Ok(name)
    }

    /// Adds a type that the sources do not have.
    pub(crate) fn put(&mut self, name: &str, docs: Docs, form: Form) {
        if self.seen.insert(name.into()) {
            self.list.push(Type { name: name.into(), docs, form });
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Type> {
        self.list.iter().find(|one| one.name == name)
    }

    /// All fields of an object, those of its bases included.
    pub(crate) fn fields(&self, object: &Object) -> Vec<Field> {
        let mut fields = object.fields.clone();
        for (base, partial) in &object.bases {
            if let Some(Type { form: Form::Object(base), .. }) = self.get(base) {
                let of_base = self.fields(base).into_iter();
                fields.extend(of_base.map(|field| Field { optional: field.optional || *partial, ..field }));
            }
        }
        fields
    }

    /// The names of all types that a type is made of, itself included.
    pub(crate) fn parts(&self, name: &str, found: &mut HashSet<String>) {
        if !found.insert(name.into()) {
            return;
        }
        let Some(one) = self.get(name) else { return };
        let shapes: Vec<&Shape> = match &one.form {
            Form::Object(object) => {
                object.bases.iter().for_each(|(base, _)| self.parts(base, found));
                object.fields.iter().map(|field| &field.shape).collect()
            }
            Form::Union(shapes) => shapes.iter().collect(),
            Form::Alias(shape) => vec![shape],
            Form::Choice(_) | Form::Opaque => Vec::new(),
        };
        shapes.into_iter().filter_map(Shape::named).for_each(|name| self.parts(name, found));
    }

    fn form(&mut self, declared: &Declared, serde: &Serde) -> Result<Form, String> {
        match &declared.body {
            Body::Struct(Fields::Named(_)) => {
                let Body::Struct(fields) = &declared.body else { return Ok(Form::Opaque) };
                self.object(fields, declared, serde).map(Form::Object)
            }
            Body::Struct(Fields::Unnamed(fields)) if fields.unnamed.len() == 1 => {
                self.shape(&fields.unnamed[0].ty).map(Form::Alias)
            }
            Body::Struct(_) => Err("xtask knows structs with named fields, or with one field".into()),
            Body::Enum(variants) => self.variants(variants, declared, serde),
        }
    }

    fn object(&mut self, fields: &Fields, declared: &Declared, owner: &Serde) -> Result<Object, String> {
        let mut object = Object::default();
        for field in fields {
            let rust = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
            let serde = Serde::of(&field.attrs).map_err(|reason| format!("{rust}: {reason}"))?;
            if serde.skip {
                continue;
            }
            let (shape, option) = match self.shape(&field.ty).map_err(|reason| format!("{rust}: {reason}"))? {
                Shape::Nullable(inner) => (*inner, true),
                shape => (shape, false),
            };
            if serde.flatten {
                let Shape::Named(base) = shape else { return Err(format!("{rust}: only objects can be flattened")) };
                object.bases.push((base, option));
                continue;
            }
            let may_lack = declared.reads && (option || serde.default || owner.default);
            let optional = serde.skip_if || may_lack;
            let shape = if option && !optional { Shape::Nullable(Box::new(shape)) } else { shape };
            let name = serde.name(&rust, owner)?;
            object.fields.push(Field { name, docs: Docs::of(&field.attrs)?, shape, optional });
        }
        Ok(object)
    }

    fn variants(&mut self, variants: &[syn::Variant], declared: &Declared, owner: &Serde) -> Result<Form, String> {
        if owner.untagged {
            let shape = |variant: &syn::Variant| match &variant.fields {
                Fields::Unnamed(fields) if fields.unnamed.len() == 1 => self.shape(&fields.unnamed[0].ty),
                _ => Err("xtask knows untagged variants with one field".to_owned()),
            };
            return variants.iter().map(shape).collect::<Result<_, _>>().map(Form::Union);
        }
        let mut named = Vec::new();
        for variant in variants {
            let serde = Serde::of(&variant.attrs)?;
            if serde.skip {
                continue;
            }
            let name = serde.name(&variant.ident.to_string(), owner)?;
            named.push((name, Docs::of(&variant.attrs)?, &variant.fields));
        }
        let Some(tag) = &owner.tag else {
            let unit = named.iter().all(|(_, _, fields)| matches!(fields, Fields::Unit));
            return match unit {
                true => Ok(Form::Choice(named.into_iter().map(|(name, docs, _)| (name, docs)).collect())),
                false => Err("xtask knows enums of texts, with a tag, or untagged".into()),
            };
        };
        let mut members = Vec::new();
        for (value, docs, fields) in named {
            let mut object = match fields {
                Fields::Unnamed(fields) if fields.unnamed.len() == 1 => match self.shape(&fields.unnamed[0].ty)? {
                    Shape::Named(base) => Object { bases: vec![(base, false)], fields: Vec::new() },
                    _ => return Err(format!("`{value}` must hold an object")),
                },
                Fields::Unnamed(_) => return Err(format!("`{value}` must hold one object")),
                fields => self.object(fields, declared, owner)?,
            };
            object.fields.insert(0, Field::tag(tag, &value));
            let member = format!("{}{}", pascal(&value), declared.name);
            self.put(&member, docs, Form::Object(object));
            members.push(Shape::Named(member));
        }
        Ok(Form::Union(members))
    }

    fn shape(&mut self, rust: &RustType) -> Result<Shape, String> {
        match rust {
            RustType::Reference(reference) => self.shape(&reference.elem),
            RustType::Slice(slice) => Ok(Shape::List(Box::new(self.shape(&slice.elem)?))),
            RustType::Array(array) => {
                let length = number(&array.len).ok_or("xtask knows arrays with a number for their length")?;
                Ok(Shape::Several(Box::new(self.shape(&array.elem)?), length as usize))
            }
            RustType::Path(path) => {
                let last = path.path.segments.last().ok_or("a type without a name")?;
                let mut arguments = Vec::new();
                if let PathArguments::AngleBracketed(given) = &last.arguments {
                    arguments.extend(given.args.iter());
                }
                self.path(&last.ident.to_string(), &arguments)
            }
            _ => Err("xtask does not know types of this kind yet".into()),
        }
    }

    /// A bound of a whole number, written or as the name of a constant.
    fn bound(&self, arguments: &[&GenericArgument], index: usize) -> Result<Option<u64>, String> {
        match arguments.get(index).and_then(|argument| name_or_number(argument)) {
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(name)) => self.sources.constant(&name).map(Some),
            None => Err("a bound of `Whole` is not understood".into()),
        }
    }

    fn path(&mut self, name: &str, arguments: &[&GenericArgument]) -> Result<Shape, String> {
        let types: Vec<&RustType> = arguments
            .iter()
            .filter_map(|argument| if let GenericArgument::Type(inner) = argument { Some(inner) } else { None })
            .collect();
        match (name, types.as_slice()) {
            ("String" | "str" | "PathBuf", _) => Ok(Shape::Text),
            ("bool", _) => Ok(Shape::Flag),
            ("f32" | "f64", _) => Ok(Shape::Number),
            ("u8" | "u16" | "u32" | "u64" | "usize", _) => Ok(Shape::Whole(Some(0), None)),
            ("Value", _) => Ok(Shape::Unknown),
            ("Whole", _) => Ok(Shape::Whole(self.bound(arguments, 0)?, self.bound(arguments, 1)?)),
            ("Box" | "Arc" | "Unread", [inner]) => self.shape(inner),
            ("Option", [inner]) => Ok(Shape::Nullable(Box::new(self.shape(inner)?))),
            ("Vec", [inner]) => Ok(Shape::List(Box::new(self.shape(inner)?))),
            ("Map" | "BTreeMap", [_, inner]) => Ok(Shape::Map(Box::new(self.shape(inner)?))),
            _ => self.add(name).map(Shape::Named),
        }
    }
}

/// A constant among the arguments of a type.
fn name_or_number(argument: &GenericArgument) -> Option<Result<u64, String>> {
    match argument {
        GenericArgument::Const(value) => number(value).map(Ok),
        GenericArgument::Type(RustType::Path(path)) => path.path.get_ident().map(|name| Err(name.to_string())),
        _ => None,
    }
}

impl Shape {
    /// The type that it names, or that its items are.
    fn named(&self) -> Option<&str> {
        match self {
            Shape::Named(name) => Some(name),
            Shape::List(inner) | Shape::Several(inner, _) | Shape::Map(inner) | Shape::Nullable(inner) => inner.named(),
            _ => None,
        }
    }
}
