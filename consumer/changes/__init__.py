"""Pure: what arrived. Schemas and payloads, field bitmaps, normalised change events, the field policy."""
