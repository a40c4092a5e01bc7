import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseRedisUrl } from '../../../stores/redis/redis-url.ts'

describe('a URL of Redis', () => {
  it('leads to one server', () => {
    expect(parseRedisUrl('redis://localhost')).toEqual({
      is: 'single',
      nodes: [{ host: 'localhost', port: 6379 }],
      isTls: false,
      username: undefined,
      password: undefined,
      family: 0,
      database: 0,
      shown: 'redis://localhost',
    })
    expect(parseRedisUrl('rediss://me:se%2Fcret@redis.internal:6380/2?family=6')).toMatchObject({
      is: 'single',
      nodes: [{ host: 'redis.internal', port: 6380 }],
      isTls: true,
      username: 'me',
      password: 'se/cret',
      family: 6,
      database: 2,
      shown: 'rediss://redis.internal:6380/2',
    })
  })

  it('leads to the primary that sentinels name, who may want a password of their own', () => {
    const url =
      'rediss+sentinel://me:pass@a:1,b,[::1]:3/tide%20mark/4?sentinelUsername=s&sentinelPassword=%26%3D'
    expect(parseRedisUrl(url)).toEqual({
      is: 'sentinel',
      nodes: [
        { host: 'a', port: 1 },
        { host: 'b', port: 26379 },
        { host: '::1', port: 3 },
      ],
      isTls: true,
      username: 'me',
      password: 'pass',
      family: 0,
      name: 'tide mark',
      database: 4,
      sentinelUsername: 's',
      sentinelPassword: '&=',
      shown: 'rediss+sentinel://a:1,b,[::1]:3/tide%20mark/4',
    })
  })

  it('leads to a Cluster, of which any node will do', () => {
    expect(parseRedisUrl('redis+cluster://:pass@a:7000,b:7001/')).toEqual({
      is: 'cluster',
      nodes: [
        { host: 'a', port: 7000 },
        { host: 'b', port: 7001 },
      ],
      isTls: false,
      username: undefined,
      password: 'pass',
      family: 0,
      shown: 'redis+cluster://a:7000,b:7001',
    })
    expect(parseRedisUrl('redis+cluster://a/0').is).toBe('cluster')
  })

  it('may carry any user and password, encoded', () => {
    const word = fc.string({ minLength: 1, unit: 'binary' })
    fc.assert(
      fc.property(word, word, fc.constantFrom('', '+sentinel', '+cluster'), (username, password, kind) => {
        const user = `${encodeURIComponent(username)}:${encodeURIComponent(password)}`
        const path = kind === '+sentinel' ? '/name' : ''
        const target = parseRedisUrl(`redis${kind}://${user}@h:1${path}`)
        expect([target.username, target.password]).toEqual([username, password])
        expect(target.shown).toBe(`redis${kind}://h:1${path}`)
      }),
    )
  })

  it('takes what stands before the last @ for user and password', () => {
    expect(parseRedisUrl('redis://me:p@ss:w@h')).toMatchObject({ username: 'me', password: 'p@ss:w' })
  })

  const wrong: [url: string, sentence: RegExp][] = [
    ['http://geheim@h', /must be a URL such as redis:\/\/localhost:6379\/0, redis\+sentinel/],
    ['localhost:6379', /must be a URL/],
    ['redis-sentinel://h/name', /redis\+sentinel/],
    ['redis://', /must name hosts as host:port/],
    ['redis+cluster://a,,b', /must name hosts/],
    ['redis+cluster://a b', /must name hosts/],
    ['redis://[::geheim]:1', /must name hosts/],
    ['redis://::1', /must name hosts|port/],
    ['redis://h:0', /port that is no number from 1 to 65535/],
    ['redis://h:65536', /port/],
    ['redis://h:', /port/],
    ['redis://me:geheim/x@h:1', /port .*%2F/],
    ['redis://:geheim#x@h', /%23/],
    ['redis://:%geheim@h', /%25/],
    ['redis://geheim@h', /user without a password/],
    ['redis://a,b', /several hosts; redis\+sentinel/],
    ['redis://h/geheim', /database that is no number/],
    ['redis://h/0/1', /nothing but a database/],
    ['redis+sentinel://h', /must name the primary/],
    ['redis+sentinel://h//0', /must name the primary/],
    ['redis+sentinel://h/name/zero', /database that is no number/],
    ['redis+sentinel://h/name/0/1', /must end with/],
    ['redis+cluster://h/1', /Cluster has only one/],
    ['redis://h?password=geheim', /option that is not known/],
    ['redis+cluster://h?sentinelPassword=geheim', /option that is not known/],
    ['redis://h?family=5', /family/],
  ]
  it.each(wrong)('%s is refused with a sentence that repeats nothing of it', (url, sentence) => {
    expect(() => parseRedisUrl(url)).toThrow(sentence)
    expect(() => parseRedisUrl(url)).not.toThrow(/geheim/)
  })
})
