/** The few words of JSON Schema that a configuration file needs, and how they are written in its table. */
import { MAX_TIMEOUT } from '../options.js'

export type Schema = { description?: string } & (
  | { type: 'string'; examples?: readonly string[] }
  | { type: 'integer' | 'number'; minimum: number; maximum: number }
  | { type: 'boolean' }
  | { enum: readonly (string | number | boolean)[] }
  | { type: 'array'; items: Schema }
  | ObjectSchema
  | { anyOf: readonly Schema[] }
)

export interface ObjectSchema {
  type: 'object'
  properties: Readonly<Record<string, Schema>>
  /** Those without which the object is nothing. */
  required?: readonly string[]
  /** What others may be that are not among the properties, where they may be any. */
  additionalProperties: false | Schema
  propertyNames?: { pattern: string }
}

export const whole = (minimum: number, maximum: number, description?: string): Schema => ({
  description,
  type: 'integer',
  minimum,
  maximum,
})
export const milliseconds = (description?: string) => whole(1, MAX_TIMEOUT, description)
export const number = (minimum: number, maximum: number, description?: string): Schema => ({
  description,
  type: 'number',
  minimum,
  maximum,
})
export const flag = (description?: string): Schema => ({ description, type: 'boolean' })
export const text = (description?: string, ...examples: string[]): Schema =>
  examples.length > 0 ? { description, type: 'string', examples } : { description, type: 'string' }
export const choice = (options: (string | number | boolean)[], description?: string): Schema => ({
  description,
  enum: options,
})
export const list = (items: Schema, description?: string): Schema => ({ description, type: 'array', items })
export const either = (anyOf: Schema[], description?: string): Schema => ({ description, anyOf })
export const object = (
  properties: Record<string, Schema>,
  description?: string,
  required: string[] = [],
): Schema => ({
  description,
  type: 'object',
  properties,
  ...(required.length > 0 && { required }),
  additionalProperties: false,
})
export const named = (schema: Schema, pattern: string, description: string): Schema => ({
  description,
  type: 'object',
  properties: {},
  additionalProperties: schema,
  propertyNames: { pattern },
})
