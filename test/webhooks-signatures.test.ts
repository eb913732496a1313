/** Signatures of webhooks: those who sign are the senders' own packages, where they have one. */
import { sign } from '@octokit/webhooks-methods'
import { receiveWebhooks, type VerifyOptions } from 'pipe-tunnel/webhooks'
import { Webhook } from 'standardwebhooks'
import Stripe from 'stripe'
import { describe, expect, test } from 'vitest'
import { post } from './helpers/webhooks.js'

/** With characters of several bytes, and spaces that a parser would lose. */
const body = '{ "type": "paid",  "note": "5 €" }\n'
const text = 'correct-horse-battery'
const base64 = `whsec_${Buffer.from(text).toString('base64')}`

/** The headers of a signed request. */
type Headers = Record<string, string>

const { webhooks } = new Stripe('sk_test_unused')

interface Sender extends VerifyOptions {
  sign(secret: string, age?: number): Headers | Promise<Headers>
  /** The header that holds the signature. */
  header: string
}

const senders: Sender[] = [
  {
    provider: 'github',
    secret: text,
    header: 'X-Hub-Signature-256',
    sign: async (secret) => ({ 'X-Hub-Signature-256': await sign(secret, body) }),
  },
  {
    provider: 'stripe',
    secret: base64,
    header: 'Stripe-Signature',
    sign: (secret, age = 0) => ({
      'Stripe-Signature': webhooks.generateTestHeaderString({
        payload: body,
        secret,
        timestamp: Math.floor(Date.now() / 1_000) - age,
      }),
    }),
  },
  {
    provider: 'standard',
    secret: base64,
    header: 'webhook-signature',
    sign(secret, age = 0) {
      const time = Math.floor(Date.now() / 1_000) - age
      return {
        'webhook-id': 'msg_1',
        'webhook-timestamp': String(time),
        'webhook-signature': new Webhook(secret).sign('msg_1', new Date(time * 1_000), body),
      }
    },
  },
]

describe.each(senders)('a signature of $provider', ({ provider, secret, header, sign }) => {
  const other = `whsec_${Buffer.from('another-secret-altogether').toString('base64')}`

  test('is accepted where it is right', async () => {
    await using hook = await receiveWebhooks({ verify: { provider, secret } })
    expect((await post(hook.url, body, await sign(secret))).status).toBe(200)

    expect((await hook.waitFor({ body: { type: 'paid' } })).verification).toEqual({ verified: true })
  })

  test.each([
    ['with another secret', other, body, 'the signature is not that of this body with this secret'],
    ['of another body', secret, `${body} `, 'the signature is not that of this body with this secret'],
  ])('is refused %s', async (_what, used, sent, reason) => {
    await using hook = await receiveWebhooks({ verify: { provider, secret } })
    const response = await post(hook.url, sent, await sign(used))

    expect([response.status, await response.text()]).toEqual([401, reason])
    expect(hook.requests).toMatchObject([{ verified: false, verification: { reason } }])
    await expect(hook.waitFor({}, { timeout: 1 })).rejects.toThrow(`: ${reason}`)
  })

  test('is refused where it is missing, or cut short', async () => {
    await using hook = await receiveWebhooks({ verify: { provider, secret } })
    const { [header]: right = '', ...others } = await sign(secret)
    const wrong = [others, { ...others, [header]: '' }, { ...others, [header]: right.slice(0, -1) }]
    for (const headers of wrong) expect((await post(hook.url, body, headers)).status).toBe(401)

    expect(hook.requests[0]?.verification).toMatchObject({ reason: `it has no ${header} header` })
    expect(hook.requests).toHaveLength(3)
  })

  test('takes no reply from the script where it is wrong', async () => {
    await using hook = await receiveWebhooks({ verify: { provider, secret } })
    hook.reply(500)

    expect((await post(hook.url, body)).status).toBe(401)
    expect((await post(hook.url, body, await sign(secret))).status).toBe(500)
  })
})

describe.each(senders.filter(({ provider }) => provider !== 'github'))(
  'a signature of $provider',
  ({ provider, secret, header, sign }) => {
    test('is refused where it is too old, or of the future', async () => {
      await using hook = await receiveWebhooks({ verify: { provider, secret } })
      expect((await post(hook.url, body, await sign(secret, 200))).status).toBe(200)
      expect((await post(hook.url, body, await sign(secret, 400))).status).toBe(401)
      expect((await post(hook.url, body, await sign(secret, -400))).status).toBe(401)

      expect(hook.requests[1]?.verification).toMatchObject({
        reason: expect.stringMatching(/^the signature is 40\d s old, where 300 s are tolerated$/),
      })
      expect(hook.requests[2]?.verification).toMatchObject({
        reason: expect.stringContaining('in the future'),
      })
    })

    test('may be as old as it is told', async () => {
      await using hook = await receiveWebhooks({ verify: { provider, secret, tolerance: 5_000 } })
      expect((await post(hook.url, body, await sign(secret, 4_000))).status).toBe(200)
    })

    test('may be one of several, as while a secret is changed', async () => {
      await using hook = await receiveWebhooks({ verify: { provider, secret } })
      const right = await sign(secret)
      const other = await sign(`whsec_${Buffer.from('the-secret-of-before').toString('base64')}`)
      const [separator, version] = provider === 'stripe' ? [',', /^.*,/] : [' ', /^/]
      const list = `${other[header]}${separator}${right[header]?.replace(version, '')}`

      expect((await post(hook.url, body, { ...right, [header]: list })).status).toBe(200)
    })
  },
)

describe('a signature of slack', () => {
  // The example of Slack's own documentation (docs.slack.dev/authentication/verifying-requests-from-slack).
  const secret = '8f742231b10e8888abcd99yyyzzz85a5'
  const command =
    'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar' +
    '&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=' +
    '&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN' +
    '&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c'
  const headers = {
    'X-Slack-Signature': 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503',
    'X-Slack-Request-Timestamp': '1531420618',
  }
  const ages = 100 * 365 * 86_400

  test('is accepted where it is right', async () => {
    await using hook = await receiveWebhooks({ verify: { provider: 'slack', secret, tolerance: ages } })
    expect((await post(hook.url, command, headers)).status).toBe(200)
  })

  test('is refused for another body or time, without one of its headers, and where it is too old', async () => {
    await using hook = await receiveWebhooks({ verify: { provider: 'slack', secret, tolerance: ages } })
    const { 'X-Slack-Request-Timestamp': timestamp, ...without } = headers
    for (const [sent, more] of [
      [`${command}&`, headers],
      [command, { ...headers, 'X-Slack-Request-Timestamp': '1531420619' }],
      [command, without],
    ] as const)
      expect((await post(hook.url, sent, more)).status).toBe(401)

    await using strict = await receiveWebhooks({ verify: { provider: 'slack', secret } })
    expect((await post(strict.url, command, headers)).status).toBe(401)
    expect(strict.requests[0]?.verification).toMatchObject({ reason: expect.stringContaining('s old') })
  })
})
