import { closestMatch } from 'leven'
import { show } from '../options.js'
import type { ObjectSchema, Schema } from './schema-words.js'

/** Letters by which a name may differ from the one that is suggested for it. */
const TYPING_MISTAKE = 3

/** What is wrong with the value, each as a sentence that begins with its path. */
export function validate(value: unknown, schema: Schema, path = ''): string[] {
  if ('anyOf' in schema) return validateEither(value, schema.anyOf, path)
  if (!fits(value, schema)) return [wrong(path, wordsFor(schema), value)]
  if ('enum' in schema) return []
  if (schema.type === 'array') {
    return (value as unknown[]).flatMap((item, index) => validate(item, schema.items, `${path}[${index}]`))
  }
  return schema.type === 'object' ? validateObject(value as Record<string, unknown>, schema, path) : []
}

/** A value of the kind of one of the schemas is told what is wrong for that one. */
function validateEither(value: unknown, schemas: readonly Schema[], path: string): string[] {
  const results = schemas.map((one) => validate(value, one, path))
  if (results.some((mistakes) => mistakes.length === 0)) return []
  const within = schemas.findIndex((one) => 'type' in one && isNested(one) && fits(value, one))
  if (within >= 0) return results[within] as string[]
  return [wrong(path, schemas.map(wordsFor).join(', or '), value)]
}

const isNested = ({ type }: { type: string }) => type === 'object' || type === 'array'

function validateObject(value: Record<string, unknown>, schema: ObjectSchema, path: string): string[] {
  const { properties, required = [], additionalProperties, propertyNames } = schema
  const names = new RegExp(propertyNames?.pattern ?? '')
  const below = (key: string) => (path ? `${path}.${key}` : key)
  const missing = required.filter((key) => value[key] === undefined)
  return [
    ...missing.map((key) => wrong(below(key), wordsFor(properties[key] as Schema), undefined)),
    ...Object.entries(value).flatMap(([key, one]) => {
      // In a module, what is undefined is left out.
      if (one === undefined) return []
      const known = Object.hasOwn(properties, key) && properties[key]
      if (known) return validate(one, known, below(key))
      if (additionalProperties === false) return [unknownKey(below(key), key, schema, below)]
      if (!names.test(key)) return [`a name in ${path} must match ${names.source}, not ${show(key)}`]
      return validate(one, additionalProperties, below(key))
    }),
  ]
}

/** A name that is known elsewhere is most often there by mistake, and not spelled wrong. */
function unknownKey(path: string, key: string, schema: ObjectSchema, below: (key: string) => string): string {
  const known = Object.keys(schema.properties)
  const places = Object.entries(schema.properties).flatMap(([name, one]) => {
    if (holds(one, key)) return [below(name)]
    const isList = 'additionalProperties' in one && one.additionalProperties
    return isList && holds(isList, key) ? [`one of ${below(name)}`] : []
  })
  if (places.length > 0) return `${path} is unknown: it belongs into ${places.join(', or into ')}`
  const nearest = closestMatch(
    key.toLowerCase(),
    known.map((one) => one.toLowerCase()),
    {
      maxDistance: TYPING_MISTAKE,
    },
  )
  const meant = known.find((one) => one.toLowerCase() === nearest)
  return `${path} is unknown: ${meant ? `did you mean ${meant}?` : `known are ${known.join(', ')}`}`
}

/** Whether objects of the schema have this name. */
function holds(schema: Schema, key: string): boolean {
  if ('anyOf' in schema) return schema.anyOf.some((one) => holds(one, key))
  return 'properties' in schema && Object.hasOwn(schema.properties, key)
}

/** Whether the value is of the schema's kind and within its bounds. What is below it is not looked at. */
function fits(value: unknown, schema: Schema): boolean {
  if ('anyOf' in schema) return schema.anyOf.some((one) => fits(value, one))
  if ('enum' in schema) return schema.enum.some((one) => one === value)
  switch (schema.type) {
    case 'string':
    case 'boolean':
      return typeof value === schema.type
    case 'integer':
    case 'number': {
      if (typeof value !== 'number' || (schema.type === 'integer' && !Number.isInteger(value))) return false
      return value >= schema.minimum && value <= schema.maximum
    }
    case 'array':
      return Array.isArray(value)
    case 'object':
      return isPlainObject(value)
  }
}

/** Not a date of TOML, nor a class of a module. */
function isPlainObject(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

function wrong(path: string, wanted: string, value: unknown): string {
  // A secret is never quoted.
  return `${path || 'it'} must be ${wanted}, not ${/secret$/.test(path) ? typeof value : shown(value)}`
}

function shown(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'object' && value !== null ? 'an object' : show(value)
}

function wordsFor(schema: Schema): string {
  if ('anyOf' in schema) return schema.anyOf.map(wordsFor).join(', or ')
  if ('enum' in schema) return schema.enum.map((one) => JSON.stringify(one)).join(' or ')
  switch (schema.type) {
    case 'string':
      return schema.examples ? `a text such as ${JSON.stringify(schema.examples[0])}` : 'a text'
    case 'integer':
      return `a whole number ${bounds(schema)}`
    case 'number':
      return `a number ${bounds(schema)}`
    case 'boolean':
      return 'true or false'
    case 'array':
      return 'a list'
    case 'object':
      return schema.required ? `an object with ${schema.required.join(' and ')}` : 'an object'
  }
}

function bounds({ minimum, maximum }: { minimum: number; maximum: number }): string {
  return maximum === Number.MAX_SAFE_INTEGER ? `of ${minimum} or more` : `from ${minimum} to ${maximum}`
}
