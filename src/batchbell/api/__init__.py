"""What the HTTP API takes, declared once as Pydantic models; one file for each noun.

The check of a body, the OpenAPI document and the reference follow from these types. A request
forbids fields that it does not declare. The rooms above import this one; it knows `core` alone.
"""
