// As much of JSON schema as docs/schema/wire.schema.json has. Fields that a schema does not name are faults, unless it says otherwise.

export interface Schema {
  $ref?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
  pattern?: string;
}

/** Faults of a value, each with its place; none when it is valid. */
export function faults(definitions: Record<string, Schema>, name: string, value: unknown): string[] {
  return check({ $ref: `#/$defs/${name}` }, value, name);

  function check(schema: Schema, value: unknown, place: string): string[] {
    if (schema.$ref !== undefined) {
      const target = definitions[schema.$ref.replace("#/$defs/", "")];
      return target === undefined ? [`${place}: ${schema.$ref} is not defined`] : check(target, value, place);
    }
    if (schema.anyOf !== undefined) {
      const each = schema.anyOf.map((member) => check(member, value, place));
      return each.some((found) => found.length === 0) ? [] : (nearest(schema.anyOf, each, value) ?? []);
    }
    if ("const" in schema)
      return schema.const === value ? [] : [`${place} is ${show(value)}, not ${show(schema.const)}`];
    if (schema.enum !== undefined) return schema.enum.includes(value) ? [] : [`${place} is ${show(value)}`];
    const types = schema.type === undefined ? [] : [schema.type].flat();
    if (types.length > 0 && !types.some((type) => isOf(type, value))) {
      return [`${place} is ${show(value)}, not ${types.join(" or ")}`];
    }
    if (typeof value === "number") return range(schema, value, place);
    if (typeof value === "string")
      return new RegExp(schema.pattern ?? "").test(value) ? [] : [`${place} is ${show(value)}`];
    if (Array.isArray(value)) return list(schema, value, place);
    return typeof value === "object" && value !== null ? fields(schema, value as Record<string, unknown>, place) : [];
  }

  function list(schema: Schema, value: unknown[], place: string): string[] {
    const few = value.length < (schema.minItems ?? 0) || value.length > (schema.maxItems ?? Number.POSITIVE_INFINITY);
    if (few) return [`${place} has ${value.length} items`];
    return value.flatMap((item, index) => check(schema.items ?? {}, item, `${place}[${index}]`));
  }

  function fields(schema: Schema, value: Record<string, unknown>, place: string): string[] {
    const missing = (schema.required ?? []).filter((name) => !(name in value)).map((name) => `${place} has no ${name}`);
    const each = Object.entries(value).flatMap(([name, field]) => {
      const own = schema.properties?.[name] ?? schema.additionalProperties;
      if (typeof own === "object") return check(own, field, `${place}.${name}`);
      return own === true || schema.properties === undefined ? [] : [`${place} has ${name}, which nothing names`];
    });
    return [...missing, ...each];
  }

  /** The faults of the member that the tag of a value names, else of the first. */
  function nearest(members: Schema[], each: string[][], value: unknown): string[] | undefined {
    const at = members.findIndex(({ $ref = "" }) => {
      const tags = Object.entries(definitions[$ref.replace("#/$defs/", "")]?.properties ?? {});
      return tags.some(
        ([name, tag]) => "const" in tag && tag.const === (value as Record<string, unknown> | null)?.[name],
      );
    });
    return each[Math.max(at, 0)];
  }
}

function isOf(type: string, value: unknown): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "integer") return Number.isSafeInteger(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  return typeof value === type;
}

function range({ minimum, exclusiveMinimum, maximum }: Schema, value: number, place: string): string[] {
  const low = value < (minimum ?? value) || value <= (exclusiveMinimum ?? Number.NEGATIVE_INFINITY);
  return low || value > (maximum ?? value) ? [`${place} is ${value}`] : [];
}

function show(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 80) ?? String(value);
}
