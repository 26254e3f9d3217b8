"""Making rows conform to the schema of their kind, or saying which column does not."""

import pyarrow as pa
import pyarrow.types as types

from data.errors import StoreError
from data.schema import Table


def conform(rows: pa.Table, declared: Table) -> pa.Table:
    """The rows in the declared column order and types; only conversions that lose nothing.

    Decoded dictionaries, other widths of the same kind of number and integers for float64 are
    converted; anything else, missing or additional columns, and nulls where none may be raise
    StoreError naming the column.
    """
    names = declared.schema.names
    for name in rows.column_names:
        if name not in names:
            raise StoreError(f"Table {declared.name!r} has no column {name!r}; it has {names}.")
    if len(set(rows.column_names)) != len(rows.column_names):
        raise StoreError(f"Rows for table {declared.name!r} repeat a column name.")
    for name in names:
        if name not in rows.column_names:
            raise StoreError(f"Column {name!r} of table {declared.name!r} is missing in the rows.")
    columns = [_column(rows[field.name], field, declared.name) for field in declared.schema]
    return pa.Table.from_arrays(columns, schema=declared.schema)


def _column(column: pa.ChunkedArray, field: pa.Field, kind: str) -> pa.ChunkedArray:
    """One column in its declared type."""
    place = f"Column {field.name!r} of table {kind!r}"
    if column.null_count and not field.nullable:
        raise StoreError(f"{place} may not be null, and {column.null_count} of its rows are.")
    if not _convertible(column.type, field.type):
        raise StoreError(f"{place} must be {field.type}, not {column.type}.")
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_list(field.type) and _nested_nulls(column):
        raise StoreError(f"{place} may not hold null within its lists.")
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise StoreError(f"{place} does not fit {field.type}: {error}.") from error


def _convertible(given: pa.DataType, declared: pa.DataType) -> bool:
    """Whether values of one type mean the same in the other (their size is checked by the cast)."""
    if given == declared or types.is_null(given):
        return True
    if types.is_dictionary(given):
        return _convertible(given.value_type, declared)
    if types.is_integer(declared):
        return types.is_integer(given)
    if types.is_floating(declared):
        return types.is_floating(given) or types.is_integer(given)
    if types.is_string(declared):
        return types.is_large_string(given) or types.is_string_view(given)
    if types.is_list(declared):
        is_list = (
            types.is_list(given) or types.is_large_list(given) or types.is_fixed_size_list(given)
        )
        return is_list and _convertible(given.value_type, declared.value_type)
    return False


def _nested_nulls(column: pa.ChunkedArray) -> bool:
    """Whether a list column holds nulls inside its lists."""
    if types.is_null(column.type):
        return False
    return any(chunk.flatten().null_count for chunk in column.chunks)
