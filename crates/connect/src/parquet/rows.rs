//! Rows of a Parquet file, assembled from its columns.
//!
//! A column stores its values with two levels each, from which nested values are put together as in the paper on Dremel: the
//! definition level says down to which part of the path there is a value, the repetition level at which list a new element begins.
//! One batch of each column is in memory at a time.

use parquet::basic::{ConvertedType, Repetition};
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::schema::types::Type;

use super::cells::Codec;
use diorama_core::record::CborValue;

/// Number of records of a column that are read at a time.
const BATCH: usize = 1_024;
/// Maximum nesting depth of one value.
const MAX_DEPTH: usize = 64;
/// Maximum number of elements of a list.
const MAX_ELEMENTS: usize = 1_000_000;
/// Maximum number of values of a column in one row group.
const MAX_VALUES: i64 = 500_000_000;

type Result<T> = std::result::Result<T, ParquetError>;

fn wrong(detail: impl Into<String>) -> ParquetError {
    ParquetError::General(detail.into())
}

fn ended() -> ParquetError {
    ParquetError::EOF("a column has fewer values than its file has rows".into())
}

/// A column of the file's rows.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    /// Meaning of its values; `None` for nested ones.
    pub(super) codec: Option<Codec>,
    ty: &'a Type,
    /// Place of its first column of values.
    first: usize,
}

/// Returns the columns of the file's rows.
pub(super) fn fields(file: &dyn FileReader) -> Vec<Field<'_>> {
    let schema = file.metadata().file_metadata().schema();
    let mut first = 0;
    schema
        .get_fields()
        .iter()
        .map(|ty| {
            let is_plain = ty.is_primitive() && ty.get_basic_info().repetition() != Repetition::REPEATED;
            let own = Field { name: ty.name(), codec: is_plain.then(|| Codec::of(ty)), ty, first };
            first += leaves(ty);
            own
        })
        .collect()
}

/// Number of columns of values of a type.
fn leaves(ty: &Type) -> usize {
    if ty.is_primitive() { 1 } else { ty.get_fields().iter().map(|field| leaves(field)).sum() }
}

/// Passes the cells of every row, for `fields` in their order, to `sink`. Stops if it returns `false`.
pub(super) fn each_row(
    file: &dyn FileReader,
    fields: &[Field<'_>],
    sink: &mut dyn FnMut(Vec<CborValue>) -> bool,
) -> Result<()> {
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group)?;
        let mut nodes = fields.iter().map(|field| Node::of_field(field, &*group)).collect::<Result<Vec<Node>>>()?;
        for _ in 0..group.metadata().num_rows() {
            let cells = nodes.iter_mut().map(Node::read).collect::<Result<Vec<CborValue>>>()?;
            if !sink(cells) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reader of one value: plain, optional, or nested.
enum Node {
    Leaf(Box<Leaf>),
    /// Present if the definition level is higher than `def`.
    Optional {
        def: i16,
        inner: Box<Node>,
    },
    Struct(Vec<(String, Node)>),
    /// Has elements while the definition level is higher than `def` and the repetition level is higher than `rep`.
    List {
        def: i16,
        rep: i16,
        inner: Box<Node>,
    },
    Map {
        def: i16,
        rep: i16,
        key: Box<Node>,
        value: Box<Node>,
    },
}

/// Builder of the nodes of a row group.
struct Builder<'a> {
    group: &'a dyn RowGroupReader,
    /// Place of the next column of values.
    next: usize,
    /// Codec in place of that of the file.
    codec: Option<Codec>,
}

impl Builder<'_> {
    fn node(&mut self, ty: &Type, def: i16, rep: i16, depth: usize) -> Result<Node> {
        match ty.get_basic_info().repetition() {
            Repetition::REQUIRED => self.bare(ty, def, rep, depth),
            Repetition::OPTIONAL => Ok(Node::Optional { def, inner: Box::new(self.bare(ty, def + 1, rep, depth)?) }),
            // A repeated field outside of a list is one by itself.
            Repetition::REPEATED => {
                Ok(Node::List { def, rep, inner: Box::new(self.bare(ty, def + 1, rep + 1, depth)?) })
            }
        }
    }

    /// Builds the node of a type without regard to its own repetition.
    fn bare(&mut self, ty: &Type, def: i16, rep: i16, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(wrong(format!("{:?} is nested more than {MAX_DEPTH} deep", ty.name())));
        }
        if ty.is_primitive() {
            return self.leaf(ty);
        }
        let depth = depth + 1;
        let (fields, repeated) = (ty.get_fields(), single_repeated(ty));
        match (ty.get_basic_info().converted_type(), repeated) {
            (ConvertedType::LIST, Some(repeated)) => {
                let inner = match repeated.is_primitive() || is_element(repeated) {
                    true => self.bare(repeated, def + 1, rep + 1, depth)?,
                    false => self.node(&repeated.get_fields()[0], def + 1, rep + 1, depth)?,
                };
                Ok(Node::List { def, rep, inner: Box::new(inner) })
            }
            (ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE, Some(repeated))
                if repeated.is_group() && repeated.get_fields().len() == 2 =>
            {
                let key = self.node(&repeated.get_fields()[0], def + 1, rep + 1, depth)?;
                let value = self.node(&repeated.get_fields()[1], def + 1, rep + 1, depth)?;
                Ok(Node::Map { def, rep, key: Box::new(key), value: Box::new(value) })
            }
            _ if fields.is_empty() => Err(wrong(format!("the group {:?} has no columns", ty.name()))),
            _ => {
                let member =
                    |field: &std::sync::Arc<Type>| Ok((field.name().to_string(), self.node(field, def, rep, depth)?));
                fields.iter().map(member).collect::<Result<_>>().map(Node::Struct)
            }
        }
    }

    fn leaf(&mut self, ty: &Type) -> Result<Node> {
        let at = self.next;
        self.next += 1;
        let chunk = self.group.metadata().column(at);
        if chunk.num_values() > MAX_VALUES {
            return Err(wrong(format!("the column {:?} has more than {MAX_VALUES} values in a row group", ty.name())));
        }
        Ok(Node::Leaf(Box::new(Leaf {
            reader: self.group.get_column_reader(at)?,
            codec: self.codec.unwrap_or_else(|| Codec::of(ty)),
            max_def: chunk.column_descr().max_def_level(),
            max_rep: chunk.column_descr().max_rep_level(),
            defs: Vec::new(),
            reps: Vec::new(),
            values: Vec::new().into_iter(),
            at: 0,
            levels: 0,
        })))
    }
}

/// Returns the only field of a list or map if it is repeated.
fn single_repeated(ty: &Type) -> Option<&Type> {
    match ty.get_fields() {
        [only] if only.get_basic_info().repetition() == Repetition::REPEATED => Some(only),
        _ => None,
    }
}

/// Returns true if the repeated group within a list is its element, as old writers have it, and not a level of its own.
fn is_element(repeated: &Type) -> bool {
    match repeated.get_fields() {
        [only] => {
            let is_nested = only.get_basic_info().repetition() == Repetition::REPEATED;
            !is_nested && (repeated.name() == "array" || repeated.name().ends_with("_tuple"))
        }
        _ => true,
    }
}

impl Node {
    fn of_field(field: &Field<'_>, group: &dyn RowGroupReader) -> Result<Node> {
        Builder { group, next: field.first, codec: field.codec }.node(field.ty, 0, 0, 0)
    }

    /// Levels of the next value: definition and repetition.
    fn peek(&mut self) -> Result<Option<(i16, i16)>> {
        match self {
            Node::Leaf(leaf) => leaf.peek(),
            Node::Optional { inner, .. } | Node::List { inner, .. } => inner.peek(),
            Node::Map { key, .. } => key.peek(),
            Node::Struct(members) => members.first_mut().map_or(Ok(None), |(_, member)| member.peek()),
        }
    }

    fn is_defined(&mut self, def: i16) -> Result<bool> {
        Ok(self.peek()?.ok_or_else(ended)?.0 > def)
    }

    /// Returns true if the next value continues the list at `rep`.
    fn continues(&mut self, rep: i16) -> Result<bool> {
        Ok(self.peek()?.is_some_and(|(_, own)| own > rep))
    }

    /// Passes over a value that is not there.
    fn skip(&mut self) -> Result<()> {
        match self {
            Node::Leaf(leaf) => leaf.next().map(drop),
            Node::Optional { inner, .. } | Node::List { inner, .. } => inner.skip(),
            Node::Map { key, value, .. } => key.skip().and_then(|()| value.skip()),
            Node::Struct(members) => members.iter_mut().try_for_each(|(_, member)| member.skip()),
        }
    }

    fn read(&mut self) -> Result<CborValue> {
        match self {
            Node::Leaf(leaf) => leaf.next(),
            Node::Optional { def, inner } => match inner.is_defined(*def)? {
                true => inner.read(),
                false => inner.skip().map(|()| CborValue::Null),
            },
            Node::Struct(members) => {
                let member = |(name, member): &mut (String, Node)| Ok((name.as_str().into(), member.read()?));
                members.iter_mut().map(member).collect::<Result<_>>().map(CborValue::Map)
            }
            Node::List { def, rep, inner } => {
                let mut items = Vec::new();
                if !inner.is_defined(*def)? {
                    return inner.skip().map(|()| CborValue::Array(items));
                }
                loop {
                    items.push(inner.read()?);
                    check_elements(items.len())?;
                    if !inner.continues(*rep)? {
                        return Ok(CborValue::Array(items));
                    }
                }
            }
            Node::Map { def, rep, key, value } => {
                let mut pairs = Vec::new();
                if !key.is_defined(*def)? {
                    key.skip()?;
                    return value.skip().map(|()| CborValue::Map(pairs));
                }
                loop {
                    pairs.push((key.read()?, value.read()?));
                    check_elements(pairs.len())?;
                    if !key.continues(*rep)? {
                        return Ok(map(pairs));
                    }
                }
            }
        }
    }
}

fn check_elements(count: usize) -> Result<()> {
    match count > MAX_ELEMENTS {
        true => Err(wrong(format!("a list has more than {MAX_ELEMENTS} elements"))),
        false => Ok(()),
    }
}

/// Returns an object if all keys are texts or integers, else an array of `{"key": ..., "value": ...}`.
fn map(pairs: Vec<(CborValue, CborValue)>) -> CborValue {
    let has_names = pairs.iter().all(|(key, _)| key.is_text() || key.is_integer());
    let name = |key: CborValue| match key {
        CborValue::Integer(number) => i128::from(number).to_string().into(),
        key => key,
    };
    match has_names {
        true => CborValue::Map(pairs.into_iter().map(|(key, value)| (name(key), value)).collect()),
        false => {
            let pair = |(key, value)| CborValue::Map(vec![("key".into(), key), ("value".into(), value)]);
            CborValue::Array(pairs.into_iter().map(pair).collect())
        }
    }
}

/// Reader of a column of values.
struct Leaf {
    reader: ColumnReader,
    codec: Codec,
    max_def: i16,
    max_rep: i16,
    defs: Vec<i16>,
    reps: Vec<i16>,
    /// Values of the batch that were not returned yet; none for nulls.
    values: std::vec::IntoIter<CborValue>,
    /// Place in the batch.
    at: usize,
    /// Number of levels in the batch.
    levels: usize,
}

impl Leaf {
    fn peek(&mut self) -> Result<Option<(i16, i16)>> {
        if self.at == self.levels {
            self.fill()?;
        }
        Ok((self.at < self.levels).then(|| (self.def(), self.reps.get(self.at).copied().unwrap_or(0))))
    }

    fn def(&self) -> i16 {
        self.defs.get(self.at).copied().unwrap_or(self.max_def)
    }

    fn next(&mut self) -> Result<CborValue> {
        self.peek()?.ok_or_else(ended)?;
        let is_there = self.def() == self.max_def;
        self.at += 1;
        if is_there { self.values.next().ok_or_else(ended) } else { Ok(CborValue::Null) }
    }

    /// Reads the next batch.
    fn fill(&mut self) -> Result<()> {
        let codec = self.codec;
        self.defs.clear();
        self.reps.clear();
        macro_rules! read {
            ($reader:expr, |$value:ident| $convert:expr) => {{
                let mut values = Vec::new();
                let (_, _, levels) =
                    $reader.read_records(BATCH, Some(&mut self.defs), Some(&mut self.reps), &mut values)?;
                self.levels = levels;
                self.values = values.into_iter().map(|$value| $convert).collect::<Vec<_>>().into_iter();
            }};
        }
        match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => read!(reader, |value| codec.boolean(value)),
            ColumnReader::Int32ColumnReader(reader) => read!(reader, |value| codec.int32(value)),
            ColumnReader::Int64ColumnReader(reader) => read!(reader, |value| codec.int64(value)),
            ColumnReader::Int96ColumnReader(reader) => read!(reader, |value| codec.int96(&value)),
            ColumnReader::FloatColumnReader(reader) => read!(reader, |value| codec.float(value)),
            ColumnReader::DoubleColumnReader(reader) => read!(reader, |value| codec.double(value)),
            ColumnReader::ByteArrayColumnReader(reader) => read!(reader, |value| codec.bytes(value.data())),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => read!(reader, |value| codec.bytes(value.data())),
        }
        self.at = 0;
        if self.max_rep == 0 {
            self.reps.clear();
        }
        Ok(())
    }
}
