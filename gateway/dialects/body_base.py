"""What every body of a request has in common."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """Unknown fields are ignored, and values of the wrong type refused."""

    model_config = ConfigDict(strict=True, extra="ignore")
