// Documents name files, settings and tests. Here whatever they name has to be there.

import { existsSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { settings, variableOf } from '../../server/settings.ts'

const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const documents = [
  ...['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'bench/README.md'],
  ...(await readdir(join(root, 'docs'), { recursive: true }))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

describe.each(documents)('%s', (document) => {
  it('links to what is there', async () => {
    const missing: string[] = []
    for (const { target, anchor } of await linksOf(document)) {
      const path = target === '' ? join(root, document) : resolve(root, dirname(document), target)
      if (!existsSync(path)) missing.push(target)
      else if (anchor && !(await anchorsOf(path)).includes(anchor)) missing.push(`${target}#${anchor}`)
    }
    expect(missing).toEqual([])
  })

  it('names test files that are there', async () => {
    const text = await read(document)
    const named = [...text.matchAll(/\btest\/[\w./-]+\.test\.ts\b/g)].map(([name]) => name)
    expect(named.filter((name) => !existsSync(join(root, name)))).toEqual([])
  })

  it('names settings that are there', async () => {
    const flags = Object.values(settings).map(({ flag }) => flag)
    const variables = flags.map(variableOf)
    const lines = (await read(document)).matchAll(/(?<![\w-])`(?:--([a-z][a-z-]+)|(TIDEMARK_[A-Z_]+))/g)
    const unknown = [...lines].filter(([, flag, variable]) =>
      flag ? !flags.includes(flag) && !isOfOthers(flag) : !variables.includes(variable!),
    )
    expect(unknown.map(([text]) => text)).toEqual([])
  })
})

it.each(['docs/reliability.md', 'docs/security.md'])(
  'names in %s only tests that are in the file they are linked to',
  async (document) => {
    const missing: string[] = []
    const links = (await linksOf(document)).filter(({ target }) => target.endsWith('.ts'))
    expect(links.length).toBeGreaterThan(20)
    for (const { text, target } of links) {
      // A whole file is linked to by its name.
      if (target.endsWith(`/${text}`)) continue
      if (!(await read(join('docs', target))).includes(text)) missing.push(`${text} (${target})`)
    }
    expect(missing).toEqual([])
  },
)

it('explains in docs/terms.md each term once, in alphabetical order', async () => {
  const terms = [...(await read('docs/terms.md')).matchAll(/^\*\*([^*]+)\*\*/gm)].map(([, term]) => term!)
  expect(terms.length).toBeGreaterThan(30)
  expect(terms).toEqual(terms.toSorted((a, b) => sortKey(a).localeCompare(sortKey(b), 'en')))
  expect(new Set(terms).size).toBe(terms.length)
})

const sortKey = (term: string) => term.replaceAll('-', '')

/** Flags of other programs, and those that are words rather than settings. */
function isOfOthers(flag: string): boolean {
  const ofDocker = ['env', 'no-healthcheck', 'read-only', 'stop-timeout', 'wait']
  return ['help', 'version', 'maxmemory-policy', ...ofDocker].includes(flag)
}

async function read(path: string): Promise<string> {
  return readFile(join(root, relative(root, resolve(root, path))), 'utf8')
}

async function linksOf(document: string) {
  const prose = (await read(document)).replace(/^```.*?^```$/gms, '')
  return [...prose.matchAll(/\[((?:`[^`]*`|[^\]])+)\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)/g)].map(
    ([, text, target, anchor]) => ({ text: text!, target: target!, anchor }),
  )
}

async function anchorsOf(path: string): Promise<string[]> {
  if (!(await stat(path)).isFile()) return []
  return [...(await readFile(path, 'utf8')).matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} -]/gu, '')
      .replaceAll(' ', '-'),
  )
}
