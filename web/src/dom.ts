/** Small helpers for the parts of the page that are not Uppy's. Text goes in as text, never as HTML. */

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id)
  if (element === null) throw new Error(`The page has no #${id}`)
  return element as T
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string>,
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

/** Tells screen readers what everybody else sees happen. */
export function announce(sentence: string): void {
  byId('announcer').textContent = sentence
}

const units = ['B', 'KB', 'MB', 'GB', 'TB', 'PB']

/** `1536` -> `1.5 KB`. In steps of 1024, as the dashboard above counts. */
export function formatSize(sizeBytes: number): string {
  const step = sizeBytes < 1 ? 0 : Math.min(Math.floor(Math.log2(sizeBytes) / 10), units.length - 1)
  const value = sizeBytes / 1024 ** step
  return `${step === 0 || value >= 100 ? Math.round(value) : Number(value.toFixed(1))} ${units[step]}`
}

let ownerOfLists = ''

/** From now on lists are those of one owner: who signs in later in the same browser sees their own. */
export function keepListsOf(owner: string): void {
  ownerOfLists = `:${owner}`
}

/** A list in localStorage. A browser that refuses storage, or lost it, means an empty list, not a broken page. */
export function storedList<T>(key: string, isItem: (value: unknown) => value is T) {
  return {
    read(): T[] {
      try {
        const items: unknown = JSON.parse(localStorage.getItem(key + ownerOfLists) ?? '[]')
        return Array.isArray(items) ? items.filter(isItem) : []
      } catch {
        return []
      }
    },
    write(items: T[]): void {
      try {
        localStorage.setItem(key + ownerOfLists, JSON.stringify(items))
      } catch {
        // Full or switched off: the list then lasts as long as the page.
      }
    },
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
