"""The dashboard in a real browser.

`axe/axe.min.js` is axe-core 4.14.1, as npm has it, under the Mozilla Public License 2.0 beside it.
"""
