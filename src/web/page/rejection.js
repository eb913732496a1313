import { clock, make } from './dom.js'

/** Shows why a visitor was turned away. */
export function showRejection(place, { outcome, reason, target, visitor, startedAt }, close) {
  place.replaceChildren(
    make('div', { class: 'actions' }, make('button', { class: 'back', onclick: close }, '← Back')),
    make('h2', {}, outcome),
    make('p', { class: 'facts' }, [target, `from ${visitor.address}`, clock(startedAt)].join(' · ')),
    make('p', { class: 'broken' }, reason),
  )
}
