/**
 * Downloads where people have to sign in. Browsers send no token with a link, and a file that the page fetched itself
 * would have to fit into its memory; so the server is asked for a link that works for a minute, and the browser takes it.
 */
import { announce, make } from './dom.ts'
import type { SignIn } from './sign-in.ts'

export class SignedDownloads {
  readonly #signIn: SignIn

  constructor(signIn: SignIn) {
    this.#signIn = signIn
  }

  /** False when the server gave no link. */
  async begin(url: string, name: string): Promise<boolean> {
    const { pathname } = new URL(url)
    const id = pathname.slice(pathname.lastIndexOf('/') + 1)
    const ask = new URL(`access/download?id=${id}`, document.baseURI)
    try {
      const answer = await fetch(ask, { method: 'POST', headers: this.#signIn.headers })
      this.#signIn.answered(answer.status)
      if (!answer.ok) throw new Error(String(answer.status))
      const { query } = (await answer.json()) as { query: string }
      make('a', { href: `${url}?${query}`, download: name }, name).click()
      return true
    } catch {
      announce(`${name} can not be downloaded right now`)
      return false
    }
  }
}
