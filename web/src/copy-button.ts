/** A button that copies a link, and says whether it could. */
import { announce, make } from './dom.ts'

export function copyButton(name: string, url: string): HTMLElement {
  const copy = make(
    'button',
    { type: 'button', class: 'button', 'aria-label': `Copy link to ${name}` },
    'Copy link',
  )
  copy.addEventListener('click', async () => {
    const copied = await copyText(url)
    copy.textContent = copied ? 'Copied' : 'Not copied'
    announce(copied ? `Link to ${name} copied` : `The link could not be copied: ${url}`)
    setTimeout(() => {
      copy.textContent = 'Copy link'
    }, 2000)
  })
  return copy
}

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copyBySelection(text)
  }
}

/** navigator.clipboard is there only on https and localhost; a server in a home or an office often has neither. */
function copyBySelection(text: string): boolean {
  const focused = document.activeElement
  const field = make('textarea', { class: 'unseen', readonly: '', 'aria-hidden': 'true' }, text)
  document.body.append(field)
  field.select()
  const copied = document.execCommand('copy')
  field.remove()
  if (focused instanceof HTMLElement) focused.focus()
  return copied
}
