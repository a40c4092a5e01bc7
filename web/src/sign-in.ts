/**
 * Who uses the page, where the server wants to know. A token is asked for once and sent with every request of the page;
 * it is kept until the tab is closed, or on this device if people wish so. When the server does not take it any more, it
 * is asked for again, and what was going on goes on.
 */
import { announce, byId, isRecord, keepListsOf } from './dom.ts'
import type { PageSettings } from './settings.ts'

export interface Account {
  owner: string
  scopes: string[]
  maxBytes: number | null
  types: string[] | null
}

type Answer = { is: 'known'; account: Account } | { is: 'refused' | 'unreachable'; sentence: string }

const storageKey = 'tidemark:token'
const sentences = {
  wrong: 'This token is not accepted here. Copy it again, all of it, or ask for a new one.',
  over: 'Your token is not accepted any more. Sign in with a good one, and everything goes on where it stopped.',
  unreachable: 'The server can not be reached right now. Try again in a moment.',
}

export class SignIn {
  readonly #endpoint = new URL('access/identity', document.baseURI)
  readonly #isNeeded: boolean
  readonly #card = byId('sign-in')
  readonly #form = byId<HTMLFormElement>('sign-in-form')
  readonly #field = byId<HTMLInputElement>('sign-in-token')
  readonly #message = byId('sign-in-message')
  #token: string | null = null
  #account: Account | null = null
  #onSignedIn: (account: Account) => void = () => {}
  #onAgain: () => void = () => {}

  constructor({ needsToken }: PageSettings) {
    this.#isNeeded = needsToken
  }

  /** Resolves when it is known who uses the page; with null where nobody is asked. */
  async start(): Promise<Account | null> {
    if (!this.#isNeeded) return null
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault()
      void this.#submit()
    })
    byId('sign-out').addEventListener('click', () => this.#signOut())
    const account = (await this.#tryKept()) ?? (await this.#ask(''))
    keepListsOf(account.owner)
    document.body.dataset.access = 'in'
    return account
  }

  /** Headers for every request to the server. */
  get headers(): Record<string, string> {
    return this.#token === null ? {} : { Authorization: `Bearer ${this.#token}` }
  }

  /** Called when people signed in again after the server had not taken their token any more. */
  onAgain(listener: () => void): void {
    this.#onAgain = listener
  }

  /** An answer of the server to a request with these headers: 401 asks people to sign in again. */
  answered(status: number): void {
    if (status !== 401 || !this.#isNeeded || this.#account === null || !this.#card.hidden) return
    forget()
    const { owner } = this.#account
    void this.#ask(sentences.over).then((account) => {
      // Somebody else: nothing of the one before may be seen, or go on in another name.
      if (account.owner !== owner) location.reload()
      else this.#onAgain()
    })
  }

  async #tryKept(): Promise<Account | null> {
    const kept = readKept()
    if (kept === null) return null
    byId<HTMLInputElement>('sign-in-stay').checked = kept.stays
    const answer = await this.#identify(kept.token)
    if (answer.is === 'known') return this.#enter(kept.token, answer.account)
    if (answer.is === 'refused') forget()
    else this.#field.value = kept.token
    return this.#ask(answer.is === 'refused' ? sentences.over : answer.sentence)
  }

  #ask(sentence: string): Promise<Account> {
    this.#card.hidden = false
    this.#say(sentence)
    this.#field.focus()
    return new Promise((resolve) => {
      this.#onSignedIn = resolve
    })
  }

  async #submit(): Promise<void> {
    const token = this.#field.value.trim()
    if (token === '') return this.#say('Paste your token first.')
    const button = byId<HTMLButtonElement>('sign-in-button')
    button.disabled = true
    const answer = await this.#identify(token)
    button.disabled = false
    if (answer.is !== 'known') {
      this.#say(answer.sentence)
      this.#field.focus()
      return
    }
    keep(token, byId<HTMLInputElement>('sign-in-stay').checked)
    this.#field.value = ''
    this.#onSignedIn(this.#enter(token, answer.account))
    announce(`Signed in as ${answer.account.owner}`)
  }

  #enter(token: string, account: Account): Account {
    this.#token = token
    this.#account = account
    this.#card.hidden = true
    byId('account').hidden = false
    byId('account-owner').textContent = account.owner
    byId('account-owner').title = account.owner
    byId('no-uploads').hidden = account.scopes.includes('create') && account.scopes.includes('append')
    return account
  }

  async #identify(token: string): Promise<Answer> {
    // A header takes no other characters; such a text is no token.
    if (!/^[\x21-\x7e]+$/.test(token)) return { is: 'refused', sentence: sentences.wrong }
    try {
      const answer = await fetch(this.#endpoint, { headers: { Authorization: `Bearer ${token}` } })
      if (answer.ok) return { is: 'known', account: accountOf(await answer.json()) }
      if (answer.status === 401) return { is: 'refused', sentence: sentences.wrong }
    } catch {
      // No answer, or not one of ours.
    }
    return { is: 'unreachable', sentence: sentences.unreachable }
  }

  #signOut(): void {
    forget()
    // Uploads stop with the page; what the browser keeps of them waits for the same owner.
    location.reload()
  }

  #say(sentence: string): void {
    this.#message.textContent = sentence
    this.#message.hidden = sentence === ''
    if (sentence === '') this.#field.removeAttribute('aria-invalid')
    else this.#field.setAttribute('aria-invalid', 'true')
  }
}

function accountOf(value: unknown): Account {
  if (!isRecord(value) || typeof value.owner !== 'string') throw new Error('no answer of this server')
  const texts = (list: unknown) =>
    Array.isArray(list) ? list.filter((item) => typeof item === 'string') : null
  return {
    owner: value.owner,
    scopes: texts(value.scopes) ?? [],
    maxBytes: typeof value.maxBytes === 'number' ? value.maxBytes : null,
    types: texts(value.types),
  }
}

function readKept(): { token: string; stays: boolean } | null {
  try {
    const staying = localStorage.getItem(storageKey)
    const token = staying ?? sessionStorage.getItem(storageKey)
    return token === null ? null : { token, stays: staying !== null }
  } catch {
    return null
  }
}

function keep(token: string, stays: boolean): void {
  forget()
  try {
    ;(stays ? localStorage : sessionStorage).setItem(storageKey, token)
  } catch {
    // A browser that keeps nothing asks again after a reload.
  }
}

function forget(): void {
  try {
    localStorage.removeItem(storageKey)
    sessionStorage.removeItem(storageKey)
  } catch {
    // Nothing was kept, then.
  }
}
