"""Unit tests of edgekube.agent."""
